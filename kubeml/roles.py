"""The processes of a pool that are Celery workers: what they are started with."""

import os
import sys

from brokers.settings import Settings, child_environment
from brokers.topology import CONTROL_QUEUE, infer_queue, train_queue

_COMMON = ("--without-gossip", "--without-mingle", "--task-events")


def exec_worker(settings: Settings, *, name: str = "", device: str = "") -> None:
    """Become a training worker: one Celery worker with one process, for one device."""
    device = device or settings.device
    queues = f"{infer_queue(device)},{train_queue(device)}"
    options = ["--queues", queues, "--concurrency", "1"]
    _become(settings, "worker", name, device, options, pool="prefork")


def exec_control(settings: Settings, *, name: str = "") -> None:
    """Become a control worker: it runs the scheduler's tasks, in its one process.

    They are short, and all they wait for has a time limit: a child of their own would only cost.
    """
    _become(settings, "control", name, "cpu", ["--queues", CONTROL_QUEUE], pool="solo")


def _become(
    settings: Settings, role: str, name: str, device: str, options: list[str], *, pool: str
) -> None:
    node = name or f"{role}-{os.getpid()}"
    env = child_environment(settings)
    env |= {
        "KUBEML_ROLE": role,
        "KUBEML_WORKER_NAME": name,
        "KUBEML_DEVICE": device,
        # One thread per process by default: more would fight for the cores, and change the bits.
        "OMP_NUM_THREADS": str(settings.torch_threads),
    }
    command = [
        sys.executable, "-P", "-m", "celery", "-A", "tasks.app", "worker",
        "--pool", pool, "--hostname", f"{node}@%h", "--loglevel", settings.log_level,
        *_COMMON, *options,
    ]  # fmt: skip
    # Celery looks for its app in the current folder first, whose tasks.py may be another one.
    settings.home.mkdir(parents=True, exist_ok=True)
    os.chdir(settings.home)
    os.execve(sys.executable, command, env)  # noqa: S606 - our own interpreter, no shell
