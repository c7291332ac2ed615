"""Inference on a worker with a job's last weights."""

from typing import Any

from kubeml.errors import Conflict, KubemlError, UserCodeError
from kubeml.worker import Worker


def infer_with(worker: Worker, job_id: str, data: list[Any]) -> dict[str, Any]:
    """Run the user's ``infer`` with the weights a job ended with (or its last checkpoint).

    Returns:
        ``{"predictions": ...}``, or ``{"error", "traceback", "hint"}`` for the caller to show.
    """
    try:
        end = worker.records.end(job_id)
        if end is not None and end.checkpoint:
            checkpoint = worker.checkpoints.read(end.checkpoint)
        else:
            latest = worker.checkpoints.latest(job_id)
            if latest is None:
                raise Conflict(what=f"job {job_id} has no weights yet")
            checkpoint = latest
        # A model of its own: what a training of the same job keeps warm stays untouched.
        warm = worker.job(job_id, "infer")
        if warm.sha256 != checkpoint.weights.sha256:
            worker.load_weights(warm, worker.checkpoints.tensors(checkpoint.weights))
            warm.sha256 = checkpoint.weights.sha256
        return {"predictions": warm.runtime.infer(data)}
    except UserCodeError as err:
        return {"error": str(err), "traceback": err.user_traceback, "hint": err.hint}
    except KubemlError as err:
        return {"error": str(err), "traceback": "", "hint": err.hint}
