"""One process that keeps several worker processes running, each pinned to a GPU.

``kubeml worker`` becomes it on a machine whose GPUs have room for more than one worker.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from brokers.settings import Settings, child_environment
from kubeml import logs
from kubeml.machine import memory_limit, pinned_environment
from kubeml.stack.child import Child, end_all

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2

#: How long the workers get to give their slots back. A batch and two seconds usually suffice.
_DRAIN_S = 25.0


class WorkerGroup:
    """Keeps the workers of one machine running. Each is a pool member with a name of its own.

    Args:
        settings: The settings of all of them.
        gpus: One worker is started for each entry.
        name: The workers are called ``{name}-1`` and so on; by host and pid if it is empty.
    """

    def __init__(self, settings: Settings, gpus: Sequence[str], *, name: str = "") -> None:
        command = [sys.executable, "-P", "-m", "kubeml", "worker"]
        self._children = [
            Child(
                name=f"{name}-{number}" if name else f"worker {number}",
                role="worker",
                command=[*command, *(["--name", f"{name}-{number}"] if name else [])],
                env=child_environment(
                    settings.with_changes(
                        metrics_port=_port(settings, number),
                        memory_bytes=memory_limit(settings, workers=len(gpus)),
                    )
                )
                | pinned_environment(gpu),
                cwd=settings.home,
                log=None,
            )
            for number, gpu in enumerate(gpus, start=1)
        ]
        self._stopping = threading.Event()

    def run(self) -> int:
        """Keep the workers running until SIGTERM or SIGINT, and return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            for child in self._children:
                child.start()
            while not self._stopping.wait(_LOOK_EVERY_S):
                self._start_again(time.monotonic())
        finally:
            end_all(self._children, _DRAIN_S)
        return 0

    def _start_again(self, now: float) -> None:
        """Start the workers again whose pause after their end is over."""
        for child in self._children:
            if child.is_up:
                continue
            if child.process is not None:
                code, pause_s = child.note_end()
                child.start_again_at = now + pause_s
                logger.warning("%s ended (exit %s), again in %.1f s", child.name, code, pause_s)
            elif now >= child.start_again_at:
                child.start()


def _port(settings: Settings, number: int) -> int:
    """Return the port of a worker's metrics, one above that of the worker before; 0: nowhere."""
    return settings.metrics_port + number - 1 if settings.metrics_port else 0


def run_group(settings: Settings, gpus: Sequence[str], *, name: str = "") -> int:
    """Become the parent of a group of workers; see ``WorkerGroup.run``."""
    logs.set_up(settings)
    settings.home.mkdir(parents=True, exist_ok=True)
    logger.info("%d workers on GPUs %s, pid %d", len(gpus), ", ".join(gpus), os.getpid())
    return WorkerGroup(settings, gpus, name=name).run()
