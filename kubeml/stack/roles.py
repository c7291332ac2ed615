"""Become one of the pool's Celery workers: ``kubeml worker`` and ``kubeml control`` end here.

Each replaces its own process by Celery's, with the arguments and the environment of its role.
"""

import os
import socket
import sys
from collections.abc import Mapping

from brokers.messages.queues import CONTROL_QUEUE, worker_queues
from brokers.settings import Settings, child_environment
from kubeml.machine import pinned_environment, pinned_gpus
from kubeml.stack.worker_group import run_group

_COMMON = ("--without-gossip", "--without-mingle", "--task-events")


def exec_worker(settings: Settings, *, name: str = "", slots_given: bool = False) -> None:
    """Become a training worker: one Celery worker with one process, for one device.

    If the GPUs have room for several workers, become their parent instead.

    Args:
        settings: They name the device, and the slots on each GPU.
        name: The worker's name in the pool; made up if it is empty.
        slots_given: See ``pinned_gpus``.

    Raises:
        Conflict, InvalidOption: See ``pinned_gpus``. Nothing was started.
    """
    gpus = pinned_gpus(settings, os.environ, slots_given=slots_given)
    if len(gpus) > 1:
        sys.exit(run_group(settings, gpus, name=name))
    device = settings.device
    options = ["--queues", ",".join(worker_queues(device)), "--concurrency", "1"]
    pinned = pinned_environment(gpus[0]) if gpus else {}
    _become(settings, "worker", name, device, options, pool="prefork", extra=pinned)


def exec_control(settings: Settings, *, name: str = "") -> None:
    """Become a control worker: it runs the scheduler's tasks in its one process.

    The tasks are short, and whatever they wait for has a time limit. A child process for them
    would cost something and give nothing.
    """
    _become(settings, "control", name, "cpu", ["--queues", CONTROL_QUEUE], pool="solo")


def _become(
    settings: Settings,
    role: str,
    name: str,
    device: str,
    options: list[str],
    *,
    pool: str,
    extra: Mapping[str, str] | None = None,
) -> None:
    node = name or f"{role}-{os.getpid()}"
    # The name is made once, here: Celery's parent announces it, and its child takes slots by it.
    name = name or f"{role}-{socket.gethostname()}-{os.getpid()}"
    env = child_environment(settings) | dict(extra or {})
    env |= {
        "KUBEML_ROLE": role,
        "KUBEML_WORKER_NAME": name,
        "KUBEML_DEVICE": device,
        # One thread per process by default: more would compete for the cores and change the bits.
        "OMP_NUM_THREADS": str(settings.torch_threads),
    }
    command = [
        sys.executable,
        "-P",
        "-m",
        "celery",
        # Celery's banner is no line of JSON.
        *(["--quiet"] if settings.log_format == "json" else []),
        "-A",
        "tasks.app",
        "worker",
        "--pool",
        pool,
        "--hostname",
        f"{node}@%h",
        "--loglevel",
        settings.log_level,
        *_COMMON,
        *options,
    ]
    # Celery looks for its app in the current folder first, whose tasks.py may be another one.
    settings.home.mkdir(parents=True, exist_ok=True)
    os.chdir(settings.home)
    os.execve(sys.executable, command, env)  # noqa: S606 - our own interpreter, no shell
