"""The Celery app of workers and control workers, and what their processes do at start and end."""

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
from typing import Any

from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from brokers.connections import state_client
from brokers.nodes import Heart
from brokers.settings import Settings
from brokers.topology import make_app

settings = Settings.load()
app = make_app(settings, name="kubeml-worker")
app.conf.include = ["tasks.train", "tasks.validate", "tasks.infer", "tasks.schedule"]

#: Set in the parent, seen by its children: the worker was told to go.
draining = multiprocessing.get_context("fork").Event()

_hearts: list[Heart] = []

_PR_SET_PDEATHSIG = 1


@setup_logging.connect
def _log_to_stderr(**_: Any) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        force=True,
    )


@worker_ready.connect
def _announce(sender: Any, **_: Any) -> None:
    role = os.environ.get("KUBEML_ROLE", "worker")
    name = settings.worker_name or f"{role}-{socket.gethostname()}-{os.getpid()}"
    heart = Heart(state_client(settings), name, role, device=settings.device)
    heart.start()
    _hearts.append(heart)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    draining.set()


@worker_shutdown.connect
def _withdraw(**_: Any) -> None:
    for heart in _hearts:
        heart.stop()


@worker_process_init.connect
def _warm_up(**_: Any) -> None:
    # A child whose parent was killed would train on as an orphan.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get("KUBEML_ROLE", "worker") == "worker":
        # In the child alone: torch's threads do not survive a fork.
        from tasks.process import warm_up

        warm_up()
