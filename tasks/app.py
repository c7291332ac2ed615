"""The Celery app of workers and control workers, and what their processes do at start and end."""

import ctypes
import os
import signal
import socket
from multiprocessing.sharedctypes import RawValue
from typing import Any

from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from brokers import fail_points
from brokers.connections import state_client
from brokers.nodes import Heart
from brokers.progress import progress
from brokers.settings import Settings
from brokers.topology import make_app
from kubeml import log_lines
from kubeml.gpus import gpu_name
from kubeml.machine import memory_limit, share
from tasks.alive import GoesRound

settings = Settings.load()
app = make_app(settings, name="kubeml-worker")
app.conf.include = ["tasks.train", "tasks.validate", "tasks.infer", "tasks.schedule"]
app.steps["consumer"].add(GoesRound)
# What a function leaks is given back with its process, between two tasks.
app.conf.worker_max_memory_per_child = memory_limit(settings) // 1024

# In memory that children share, without a lock that one of them could die with.
_draining = RawValue("b", 0)

_hearts: list[Heart] = []

_PR_SET_PDEATHSIG = 1


def is_draining() -> bool:
    """Whether this worker was told to go; seen in its children too."""
    return bool(_draining.value)


# Before the first warning, too: that of a worker which runs as root comes at once.
@celeryd_init.connect
@setup_logging.connect
def _log_to_stderr(**_: Any) -> None:
    log_lines.set_up(settings)


@worker_ready.connect
def _announce(sender: Any, **_: Any) -> None:
    role = os.environ.get("KUBEML_ROLE", "worker")
    name = settings.worker_name or f"{role}-{socket.gethostname()}-{os.getpid()}"
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "") if settings.device == "gpu" else ""
    facts = {**share(), **({"gpu_name": gpu_name(gpu)} if gpu else {})}
    heart = Heart(state_client(settings), name, role, device=settings.device, gpu=gpu, facts=facts)
    heart.start()
    progress.begin(settings.home, role, name)
    _hearts.append(heart)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    # SIGTERM is Celery's warm shutdown: it waits for the tasks, which look here.
    _draining.value = 1


@worker_shutdown.connect
def _withdraw(**_: Any) -> None:
    for heart in _hearts:
        heart.stop()
    progress.end()


# In a control worker, which has no children, this is the process itself.
@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    role = os.environ.get("KUBEML_ROLE", "worker")
    fail_points.install(settings.fail, "scheduler" if role == "control" else role)
    if role == "worker":
        # A child whose parent was killed would train on as an orphan.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # In the child alone: torch's threads do not survive a fork.
        from tasks.process import warm_up

        warm_up()
    if settings.metrics_port:
        from tasks.metrics import serve

        serve(role)
