"""The tasks of a training worker, and the one ``Worker`` of its child process.

Celery's parent process imports this module, too, but only passes messages on. So whatever the work
needs is imported where the work is done, after the fork: that makes the parent a third smaller.
"""

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from brokers.messages.hint import Hint
from brokers.messages.topology import INFER, TRAIN, VALIDATE
from brokers.pool.refusals import note_refused
from kubeml.errors import MalformedMessage
from tasks.app import app, is_draining, settings

if TYPE_CHECKING:
    from kubeml.backends import Backends
    from kubeml.worker.warm import Worker

logger = logging.getLogger(__name__)


@app.task(name=TRAIN, acks_late=False, ignore_result=True)
def train(wire: dict[str, Any], stage: str = "train") -> str:
    """Lend this process to a job until it wants no more. A lost or doubled task breaks nothing."""
    return _participate(wire, stage)


@app.task(name=VALIDATE, acks_late=False, ignore_result=True)
def validate(wire: dict[str, Any]) -> str:
    """Lend this process to a job's validation. A lost or doubled task breaks nothing."""
    return _participate(wire, "validate")


@app.task(name=INFER, acks_late=False)
def infer(wire: dict[str, Any], data: list[Any]) -> dict[str, Any]:
    """Return ``{"predictions": …}``, or what went wrong; see ``kubeml.worker.inference``."""
    from kubeml.worker.inference import infer_with

    hint = hint_or_none(wire)
    if hint is None:
        return {"error": "the request is malformed", "traceback": "", "hint": ""}
    return infer_with(this_worker(), hint, data)


def _participate(wire: dict[str, Any], stage: str) -> str:
    from kubeml.worker.participant import participate

    hint = hint_or_none(wire)
    if hint is None:
        return "refused"
    return participate(this_worker(), hint, stage, is_draining=is_draining)


def hint_or_none(wire: Any) -> Hint | None:
    """Return the task's hint; None if it is malformed, which is logged and counted."""
    try:
        return Hint.from_wire(wire)
    except MalformedMessage as err:
        note_refused(these_backends().redis, "task", err)
        return None


@lru_cache(maxsize=1)
def these_backends() -> "Backends":
    """Return this process's connections, made after the fork and kept from task to task."""
    from kubeml.backends import Backends

    return Backends(settings)


@lru_cache(maxsize=1)
def this_worker() -> "Worker":
    """Return this process's worker, made after the fork and kept from task to task."""
    from kubeml.worker.warm import Worker

    return Worker(these_backends())


def warm_up() -> None:
    """Import what every job needs, so that the first one does not wait for it."""
    import torch

    from kubeml.runtime.lazy_compiler import defer_compiler

    defer_compiler()
    # Imported for their side effect on sys.modules.
    import kubeml.catalog.datasets
    import kubeml.runtime.loading
    import kubeml.worker.participant  # noqa: F401

    torch.set_num_threads(settings.torch_threads)
    this_worker()
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    logger.info("ready for work on %s", "a CPU" if settings.device == "cpu" else f"GPU {gpu}")
