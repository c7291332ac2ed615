"""What the Celery processes of workers and control workers do at start, while they run, at end."""

import ctypes
import os
import signal
import socket
from typing import Any

from celery.bootsteps import StartStopStep
from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from brokers import fail_points
from brokers.alive_files import alive_file
from brokers.pool.presence import Heart
from brokers.state.connections import state_client
from kubeml import logs
from kubeml.machine import gpu_name, share
from tasks.app import app, drain, settings

_hearts: list[Heart] = []

_PR_SET_PDEATHSIG = 1

_NOTE_EVERY_S = 2.0


# Logging is set up before Celery's first warning: a worker that runs as root gets one at once.
@celeryd_init.connect
@setup_logging.connect
def _log_to_stderr(**_: Any) -> None:
    logs.set_up(settings)


@worker_ready.connect
def _announce(sender: Any, **_: Any) -> None:
    role = os.environ.get("KUBEML_ROLE", "worker")
    name = settings.worker_name or f"{role}-{socket.gethostname()}-{os.getpid()}"
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "") if settings.device == "gpu" else ""
    facts = {**share(), **({"gpu_name": gpu_name(gpu)} if gpu else {})}
    heart = Heart(state_client(settings), name, role, device=settings.device, gpu=gpu, facts=facts)
    heart.start()
    alive_file.begin(settings.home, role, name)
    _hearts.append(heart)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    # SIGTERM begins Celery's warm shutdown: it waits for the tasks, which look at this flag.
    drain()


@worker_shutdown.connect
def _withdraw(**_: Any) -> None:
    for heart in _hearts:
        heart.stop()
    alive_file.end()


# A control worker has no children: there this runs in the process itself.
@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    role = os.environ.get("KUBEML_ROLE", "worker")
    fail_points.install(settings.fail, "scheduler" if role == "control" else role)
    if role == "worker":
        # Without this, a child whose parent was killed would train on as an orphan.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Only in the child: torch's threads do not survive a fork.
        from tasks.worker import warm_up

        warm_up()
    if settings.metrics_port:
        _serve_metrics(role)


def _serve_metrics(role: str) -> None:
    """Serve the metrics of this process from now on, which is the one that does the work."""
    # Imported here: prometheus_client takes memory, and most processes serve no metrics.
    from kubeml.metrics.exporter import serve_control, serve_worker

    if role == "worker":
        from tasks.worker import this_worker

        serve_worker(settings, this_worker().book)
    else:
        from tasks.schedule import this_scheduler

        serve_control(settings, this_scheduler().book)


class GoesRound(StartStopStep):
    """Celery's event loop notes that it goes round, for probes.

    It is a timer of the consumer, and is set anew with every connection to the broker.
    """

    def start(self, consumer: Any) -> None:
        """Begin to note. The loop drops its timers when it loses the broker."""
        consumer.timer.call_repeatedly(_NOTE_EVERY_S, alive_file.note)


app.steps["consumer"].add(GoesRound)
