"""Finds out which cores, memory and GPUs of its machine a process may use. Never imports torch."""

import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from brokers.settings import Settings
from kubeml.errors import Conflict, InvalidOption

#: No process is replaced for holding less than this, unless a setting says so.
_LEAST_LIMIT = 2 * 2**30


class Share(TypedDict):
    """Cores and memory as a worker declares them to the pool."""

    cores: int
    memory_bytes: int


def share(*, root: Path = Path("/")) -> Share:
    """Return the cores and the memory that this process may use, by its container's limits too.

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
    """Return how many bytes a worker process may hold before it is replaced.

    Args:
        settings: Its ``memory_bytes`` is returned if it is not 0.
        workers: How many workers share this machine or container. Each gets an equal part of
            nine tenths of the memory, and 2 GiB at least: not all of them will leak.
    """
    if settings.memory_bytes:
        return settings.memory_bytes
    usable = share()["memory_bytes"] * 9 // 10
    return max(usable // workers, min(_LEAST_LIMIT, usable))


def resident_bytes() -> int:
    """Return the memory that this process holds (RSS); 0 if the kernel does not tell."""
    _, _, rest = _first_line(Path("/proc/self/statm")).partition(" ")
    pages = rest.partition(" ")[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") if pages.isdigit() else 0


def _first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8").partition("\n")[0].strip()
    except OSError:
        # There are no cgroups, or they are of another version.
        return ""


VISIBLE = "CUDA_VISIBLE_DEVICES"

#: The environment variable that tells a process that its parent has pinned it to a GPU.
PINNED = "KUBEML_PINNED"

_ASK_WITHIN_S = 20.0


def pinned_gpus(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    workers: int | None = None,
    option: str = "--workers",
    slots_given: bool = False,
) -> tuple[str, ...]:
    """Return the GPU of each worker process that is to be started; empty on a CPU.

    Args:
        settings: They name the device and the slots on each GPU.
        environ: The environment, which may tell CUDA which devices to use.
        workers: How many processes to start; None: as many as there is room for.
        option: The flag that gave ``workers``.
        slots_given: Whether the user gave ``slots_per_gpu`` explicitly.

    Raises:
        Conflict: There is no GPU. Or this process was pinned to one GPU and sees several: its
            workers would see as many and start as many, without end.
        InvalidOption: There are more workers than room; or slots per GPU were given for a CPU.
    """
    if settings.device != "gpu":
        if slots_given:
            raise InvalidOption(
                option="--slots-per-gpu",
                got=f"{settings.slots_per_gpu} with --device cpu",
                expected="--device gpu beside it",
            )
        return ()
    gpus = visible_gpus(environ)
    if not gpus:
        told = f"{VISIBLE} is {environ[VISIBLE]!r}" if VISIBLE in environ else ""
        raise Conflict(
            what=f"no GPU can be used here{f': {told}' if told else ''}",
            hint="use --device cpu, or see whether nvidia-smi finds one",
        )
    places = spread(gpus, settings.slots_per_gpu)
    if PINNED in environ and len(places) > 1:
        raise Conflict(
            what=f"this worker was pinned to GPU {environ[PINNED]}, and sees {', '.join(gpus)}",
            hint=f"something sets {VISIBLE} anew: a wrapper of Python, or a start-up file?",
        )
    if workers is not None and workers > len(places):
        raise InvalidOption(
            option=option,
            got=str(workers),
            expected=f"{len(places)} at most (GPUs: {len(gpus)}, slots on each:"
            f" {settings.slots_per_gpu})",
        )
    return places[:workers]


def spread(gpus: Sequence[str], slots: int) -> tuple[str, ...]:
    """Return a GPU for each of ``slots`` processes per GPU, by turns: the first ones all differ."""
    return tuple(gpus) * slots


def pinned_environment(gpu: str) -> dict[str, str]:
    """Return the variables by which a worker process sees one GPU, and no other."""
    return {VISIBLE: gpu, PINNED: gpu, "KUBEML_DEVICE": "gpu", "KUBEML_SLOTS_PER_GPU": "1"}


def visible_gpus(environ: Mapping[str, str], *, root: Path = Path("/")) -> tuple[str, ...]:
    """Return the GPUs that CUDA lets this process use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Args:
        environ: If it has that variable, its value is read as CUDA reads it: up to the first
            name that is not valid.
        root: Where ``/proc`` and ``/dev`` are, for the case that nvidia-smi does not answer.
    """
    told = environ.get(VISIBLE)
    if told is not None:
        return _named(told)
    count = _asked() or _driven(root) or _devices(root)
    return tuple(map(str, range(count)))


def gpu_name(gpu: str) -> str:
    """Return the model of a GPU, e.g. ``NVIDIA H100 80GB HBM3``; "" if nvidia-smi cannot say.

    Args:
        gpu: The GPU as ``CUDA_VISIBLE_DEVICES`` names it.
    """
    answer = _ask("--query-gpu=name", "--format=csv,noheader", f"--id={gpu}")
    return answer.partition("\n")[0].strip()


def _named(told: str) -> tuple[str, ...]:
    names: list[str] = []
    for name in (part.strip() for part in told.split(",")):
        if not re.fullmatch(r"\d+|GPU-[\w-]+|MIG-[\w/-]+", name) or name in names:
            break
        names.append(name)
    return tuple(names)


def _asked() -> int:
    """Return how many GPUs nvidia-smi lists; 0 also if it cannot say."""
    return sum(line.startswith("GPU ") for line in _ask("--list-gpus").splitlines())


def _ask(*arguments: str) -> str:
    """Return what nvidia-smi prints; "" if it is missing, fails or does not answer."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own tool
            [command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_ASK_WITHIN_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Its error messages go to stdout, too.
    return "" if done.returncode else done.stdout


def _driven(root: Path) -> int:
    """Return how many GPUs the kernel's driver knows."""
    return sum(1 for _ in root.glob("proc/driver/nvidia/gpus/*"))


def _devices(root: Path) -> int:
    """Return how many GPUs have a device file: a container may have been given only some."""
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in root.glob("dev/nvidia*"))
