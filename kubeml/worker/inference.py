"""Inference on a worker with a job's last weights, for the task ``kubeml.infer``."""

import logging
from typing import Any

from brokers.messages.hint import Hint
from brokers.pool.inference_requests import take
from kubeml.errors import Conflict, KubemlError, UserCodeError
from kubeml.worker.warm import Worker

logger = logging.getLogger(__name__)


def infer_with(worker: Worker, hint: Hint, data: list[Any]) -> dict[str, Any]:
    """Run the user's ``infer`` with the weights a job ended with, or its last checkpoint.

    Args:
        worker: The worker of this process.
        hint: The job, and the request's ticket.
        data: The data points that ``infer`` gets.

    Returns:
        ``{"predictions": ...}``, or ``{"error", "traceback", "hint"}`` for the caller to show.
    """
    job_id = hint.job_id
    _take(worker, hint)
    try:
        end = worker.backends.records.end(job_id)
        if end is not None and end.checkpoint:
            checkpoint = worker.backends.checkpoints.read(end.checkpoint)
        else:
            latest = worker.backends.checkpoints.latest(job_id)
            if latest is None:
                raise Conflict(what=f"job {job_id} has no weights yet")
            checkpoint = latest
        # Inference has a model of its own: the one that training keeps warm stays untouched.
        warm = worker.job(job_id, "infer")
        if warm.sha256 != checkpoint.weights.sha256:
            worker.load_weights(warm, worker.backends.checkpoints.tensors(checkpoint.weights))
            warm.sha256 = checkpoint.weights.sha256
        return {"predictions": warm.runtime.infer(data)}
    except UserCodeError as err:
        return {"error": str(err), "traceback": err.user_traceback, "hint": err.hint}
    except KubemlError as err:
        return {"error": str(err), "traceback": "", "hint": err.hint}


def _take(worker: Worker, hint: Hint) -> None:
    """Tell the pool, so that this worker is not ended meanwhile."""
    try:
        take(worker.backends.redis, hint.ticket, worker=worker.name)
    except KubemlError as err:
        # The answer needs no state server. Nor the right to write there, which access files of
        # older versions do not give.
        logger.warning("request %s is not known to be in hand: %s", hint.ticket, err)
