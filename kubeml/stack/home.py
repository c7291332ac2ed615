"""The files in KUBEML_HOME by which the supervisor and later commands find each other.

The supervisor holds the lock and writes the status; ``kubeml up``, ``down`` and ``status`` read it.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brokers.settings import PROFILE_NAME
from kubeml.stack.processes import ProcessInfo, kill_survivors


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, all at once."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        # Without the fsync a power cut may leave an empty file of that name.
        os.fsync(file.fileno())
    fresh.replace(path)


STACK_NAME, STATUS_NAME, LOCK_NAME = "stack.json", "status.json", "lock"

#: Exit code of a supervisor that found another one at work.
GAVE_WAY = 3
_LOCK_WITHIN_S = 3.0


def is_running(home: Path) -> bool:
    """Return whether a supervisor lives in ``home``, which is to say that it holds the lock."""
    try:
        # A shared lock: two commands that ask at once do not take each other for a supervisor.
        with _lock(home, fcntl.LOCK_SH):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def hold_lock(home: Path) -> int:
    """Take the lock for the life of this process, and return its descriptor.

    Raises:
        BlockingIOError: Another supervisor holds it.
    """
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A command that only asks whether a supervisor runs holds the lock for a moment, too.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return descriptor


def clean_up(home: Path) -> int:
    """Kill the processes that a dead supervisor left behind. Only the lock's holder may call it.

    Returns:
        How many processes were killed.
    """
    left = kill_survivors(noted_processes(home), run=_read(home).get("run", ""))
    for name in (PROFILE_NAME, STATUS_NAME):
        (home / name).unlink(missing_ok=True)
    return left


def noted_processes(home: Path) -> list[ProcessInfo]:
    """Return the processes in the status file, whether they still live or not."""
    try:
        return [ProcessInfo(**row) for row in _read(home).get("processes", [])]
    except TypeError:
        # Another version of kubeml wrote it.
        return []


def _read(home: Path) -> dict[str, Any]:
    try:
        value = json.loads((home / STATUS_NAME).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        # The file is missing, or was torn by a power cut: nothing is known.
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def _lock(home: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
