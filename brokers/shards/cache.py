"""The workers' disk cache of dataset shards: files by hash, bounded, shared by all processes.

``ShardReader`` reads through it.
"""

import fcntl
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brokers.errors import Corrupted

logger = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = ".part"

#: How long a process waits while another one downloads the same shard, before it does so itself.
_LOCK_WAIT_S = 60.0
_LOCK_POLL_S = 0.01
#: A temporary file of this age was left by a process that was killed.
_STALE_S = 3600.0
_READ_BYTES = 1 << 20


class ShardCache:
    """Files by SHA-256, ``max_bytes`` of them at most; the least recently used are dropped first.

    Any number of processes and threads may use one directory. A file appears complete or not at
    all. A dropped file stays readable for processes that have it mapped, and its blocks are free
    once the last map is gone. A single file larger than ``max_bytes`` is kept, alone.

    Args:
        directory: Where the files are. It is created if need be, and belongs to the cache alone.
        max_bytes: Bound of the sum of the files' sizes.
        lock_wait_s: How long to wait for another process that downloads the same file.
    """

    def __init__(
        self, directory: Path, max_bytes: int, *, lock_wait_s: float = _LOCK_WAIT_S
    ) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._lock_wait_s = lock_wait_s
        self._locks = directory / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        # Hashing 16 MiB takes 10 ms, so files that were verified here are known by their inodes.
        self._verified: dict[str, tuple[int, int, int, int]] = {}

    def get(self, sha256: str, fetch: Callable[[], bytes]) -> Path:
        """Return the path of the file with this hash; ``fetch`` downloads it if it is missing.

        Args:
            sha256: Hash of the content, in lower-case hex.
            fetch: Returns the content. One process calls it at a time.

        Raises:
            Corrupted: What ``fetch`` returned has another hash, twice in a row.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256")
        path = self.directory / sha256
        if self._is_sound(path):
            return path
        # 256 lock files serve all shards: one for each would litter, and unlinking locks is a race.
        with _locked(self._locks / sha256[:2], wait_s=self._lock_wait_s):
            if not self._is_sound(path):
                if path.exists():
                    logger.warning(
                        "cached shard %s is corrupt and is fetched again",
                        sha256,
                        extra={"event": "cache_corrupt"},
                    )
                self._store(path, _fetch_verified(sha256, fetch))
        return path

    def has(self, sha256: str) -> bool:
        """Return whether there is a file of this name, which ``get`` would still verify."""
        return (self.directory / sha256).exists()

    def touch(self, sha256: str) -> None:
        """Note that a file is in use that a reader keeps mapped, and so does not ``get`` again."""
        path = self.directory / sha256
        with suppress(FileNotFoundError):
            # Change the access time alone: the modification time is part of what was verified.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def num_bytes(self) -> int:
        """Return the number of bytes of all complete files."""
        return sum(stat.st_size for _, stat in self._files())

    def _is_sound(self, path: Path) -> bool:
        sha256 = path.name
        try:
            with path.open("rb") as file:
                identity = _identity(os.fstat(file.fileno()))
                if self._verified.get(sha256) != identity:
                    digest = hashlib.sha256()
                    while block := file.read(_READ_BYTES):
                        digest.update(block)
                    if digest.hexdigest() != sha256:
                        return False
                    self._verified[sha256] = identity
        except FileNotFoundError:
            return False
        self.touch(sha256)
        return True

    def _store(self, path: Path, content: bytes) -> None:
        self._make_room(len(content), keep=path.name)
        handle, name = tempfile.mkstemp(dir=self.directory, suffix=_TEMPORARY)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                self._verified[path.name] = _identity(os.fstat(file.fileno()))
            temporary.replace(path)
        except BaseException:
            self._verified.pop(path.name, None)
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, num_bytes: int, *, keep: str) -> None:
        """Drop the least recently used files until ``num_bytes`` more fit."""
        with _locked(self._locks / "eviction", wait_s=self._lock_wait_s):
            self._drop_stale()
            files = sorted(self._files(), key=lambda entry: entry[1].st_atime_ns)
            used = sum(stat.st_size for path, stat in files if path.name != keep)
            for path, stat in files:
                if used + num_bytes <= self.max_bytes:
                    return
                if path.name != keep:
                    path.unlink(missing_ok=True)
                    self._verified.pop(path.name, None)
                    used -= stat.st_size

    def _drop_stale(self) -> None:
        for path in self.directory.glob(f"*{_TEMPORARY}"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.directory.iterdir():
            if _SHA256.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    yield path, path.stat()


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _fetch_verified(sha256: str, fetch: Callable[[], bytes]) -> bytes:
    got = ""
    for _ in range(2):
        content = fetch()
        got = hashlib.sha256(content).hexdigest()
        if got == sha256:
            return content
    raise Corrupted(what="a dataset shard", got=f"SHA-256 {got}", expected=sha256)


@contextmanager
def _locked(path: Path, *, wait_s: float) -> Iterator[None]:
    """Hold a lock among processes and threads, or go on without it after ``wait_s``.

    The lock only saves work; files stay right without it. So a process that is frozen while it
    holds the lock delays the others, but never stops them. The kernel frees the lock of a process
    that was killed.
    """
    deadline = time.monotonic() + wait_s
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(handle) and time.monotonic() < deadline:
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
