"""A file that tells when a process last went round its main loop, for probes on its own machine.

A process that is stuck leaves a stale file. A server that is away makes no file stale: a process
that tries to connect goes round, too, and its restart would not bring the server back. A process
that waits for a server that hangs is excused by the probe (``kubeml.ops.probe``) that sees it.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_FOLDER = "alive"

#: Main loops go round far more often than a probe needs to know.
_NOTE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What a process of this machine has noted of itself.

    Attributes:
        name: Its name in the pool.
        pid: Its process id.
        age_s: How long ago its main loop went round, or it was excused.
        file: The file where it notes that.
    """

    name: str
    pid: int
    age_s: float
    file: Path


def excuse(sign: Sign) -> None:
    """Let a process's time begin anew, since what it waits for is not its fault."""
    with suppress(FileNotFoundError):
        os.utime(sign.file)


class AliveFile:
    """The file of this process. Nothing is written before ``begin``, or by a forked child."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._pid = 0
        self._noted_at = 0.0

    def begin(self, home: Path, role: str, name: str) -> None:
        """Say that this process is at work. From now on it must call ``note`` in its main loop."""
        folder = home / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._pid = os.getpid()
        self._file = folder / f"{role}-{self._pid}.json"
        self._file.write_text(json.dumps({"name": name, "pid": self._pid}), "utf-8")

    def note(self) -> None:
        """Note that the main loop went round; it costs next to nothing."""
        now = time.monotonic()
        if self._file is None or now - self._noted_at < _NOTE_EVERY_S or os.getpid() != self._pid:
            return
        self._noted_at = now
        try:
            os.utime(self._file)
        except OSError:
            # The disk is full, or somebody tidied the folder: the probe will say so.
            return

    def end(self) -> None:
        """Say that this process leaves."""
        if self._file is not None and os.getpid() == self._pid:
            self._file.unlink(missing_ok=True)
            self._file = None


#: The file of this process.
alive_file = AliveFile()


def signs(home: Path, role: str) -> list[Sign]:
    """Return what the living processes of a role (``*``: of any) in this home noted, by name."""
    found = []
    for file in (home / _FOLDER).glob(f"{role}-*.json"):
        try:
            row = json.loads(file.read_text("utf-8"))
            age_s = time.time() - file.stat().st_mtime
            os.kill(row["pid"], 0)
        except (OSError, ValueError, KeyError):
            # The process was killed and left its file behind, or the file is half-written.
            continue
        found.append(Sign(name=row["name"], pid=row["pid"], age_s=age_s, file=file))
    return sorted(found, key=lambda sign: sign.name)
