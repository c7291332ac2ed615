"""What of its machine a process may use. Never imports torch."""

import math
import os
from pathlib import Path
from typing import TypedDict


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


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8").partition("\n")[0].strip()
    except OSError:
        # No cgroups, or those of another version.
        return ""
