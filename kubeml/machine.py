"""What of its machine a process may use. Never imports torch."""

import math
import os
from pathlib import Path
from typing import TypedDict

from brokers.settings import Settings

#: No process is replaced for less, unless it is asked for.
_LEAST_LIMIT = 2 * 2**30


class Share(TypedDict):
    """Cores and memory, as a worker declares them."""

    cores: int
    memory_bytes: int


def share(*, root: Path = Path("/")) -> Share:
    """The cores and the memory that this process may use: a container's limits, if it has any.

    Args:
        root: Where ``/sys/fs/cgroup`` is.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = root / "sys" / "fs" / "cgroup"
    quota, _, period = _first_line(group / "cpu.max").partition(" ")
    limit = _first_line(group / "memory.max")
    if quota.isdigit() and period.isdigit():
        cores = min(cores or 1, math.ceil(int(quota) / int(period)))
    if limit.isdigit():
        memory = min(memory, int(limit))
    return {"cores": cores or 1, "memory_bytes": memory}


def memory_limit(settings: Settings, *, workers: int = 1) -> int:
    """How many bytes a worker process may hold before it is replaced.

    Args:
        settings: Its ``memory_bytes``, if that is not 0.
        workers: How many of them may use this machine or container: each gets nine tenths of its
            part of that; 2 GiB, where there are so many, since not all of them will leak.
    """
    if settings.memory_bytes:
        return settings.memory_bytes
    usable = share()["memory_bytes"] * 9 // 10
    return max(usable // workers, min(_LEAST_LIMIT, usable))


def resident_bytes() -> int:
    """Memory that this process holds (RSS); 0 where the kernel does not tell."""
    _, _, rest = _first_line(Path("/proc/self/statm")).partition(" ")
    pages = rest.partition(" ")[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") if pages.isdigit() else 0


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8").partition("\n")[0].strip()
    except OSError:
        # No cgroups, or those of another version.
        return ""
