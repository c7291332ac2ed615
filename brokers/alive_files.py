"""A file that tells when a process last went round its main loop, for probes on its own machine.

One that is stuck leaves a stale file. A server that is away makes none stale: trying to connect is
going round, too, and a restart would bring no server back. Who waits for a server that hangs is
excused by the probe that sees it.
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
    """What a process of this machine has noted.

    Attributes:
        name: Its name in the pool.
        pid: Its process id.
        age_s: How long ago its main loop went round, or it was excused.
        file: Where it notes that.
    """

    name: str
    pid: int
    age_s: float
    file: Path


def excuse(sign: Sign) -> None:
    """Begin its time anew: what it waits for is not of its making."""
    with suppress(FileNotFoundError):
        os.utime(sign.file)


class AliveFile:
    """The file of this process. Nothing is written before ``begin``, nor by a forked child."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._pid = 0
        self._noted_at = 0.0

    def begin(self, home: Path, role: str, name: str) -> None:
        """Say that this process is at work; it is to call ``note`` in its main loop from now on."""
        folder = home / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._pid = os.getpid()
        self._file = folder / f"{role}-{self._pid}.json"
        self._file.write_text(json.dumps({"name": name, "pid": self._pid}), "utf-8")

    def note(self) -> None:
        """Note that the main loop went round; costs nothing to speak of."""
        now = time.monotonic()
        if self._file is None or now - self._noted_at < _NOTE_EVERY_S or os.getpid() != self._pid:
            return
        self._noted_at = now
        try:
            os.utime(self._file)
        except OSError:
            # A full disk, or a folder that somebody tidied: the probe will say so.
            return

    def end(self) -> None:
        """Say that this process leaves."""
        if self._file is not None and os.getpid() == self._pid:
            self._file.unlink(missing_ok=True)
            self._file = None


#: This process's.
alive_file = AliveFile()


def signs(home: Path, role: str) -> list[Sign]:
    """What the living processes of a role (``*``: of any) under this home have noted, by name."""
    found = []
    for file in (home / _FOLDER).glob(f"{role}-*.json"):
        try:
            row = json.loads(file.read_text("utf-8"))
            age_s = time.time() - file.stat().st_mtime
            os.kill(row["pid"], 0)
        except (OSError, ValueError, KeyError):
            # Gone, or half-written: a process that was killed leaves its file behind.
            continue
        found.append(Sign(name=row["name"], pid=row["pid"], age_s=age_s, file=file))
    return sorted(found, key=lambda sign: sign.name)
