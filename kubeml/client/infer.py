"""Asking a worker for an inference with a job's last weights."""

from typing import Any

from brokers.messages.hint import Hint
from brokers.pool.inference_requests import awaited
from brokers.wire import new_id
from kubeml.backends import Backends
from kubeml.errors import Conflict, TimedOut, UserCodeError
from kubeml.jobs.spec import JobSpec


def infer(backends: Backends, spec: JobSpec, data: list[Any], *, timeout_s: float) -> Any:
    """Run the function's ``infer`` on a worker; see ``Client.infer``."""
    if backends.checkpoints.latest(spec.id) is None:
        raise Conflict(
            what=f"job {spec.id} has no weights yet", hint=f"kubeml task show --id {spec.id}"
        )
    hint = Hint(job_id=spec.id, ticket=new_id())
    try:
        with awaited(
            backends.redis,
            hint.ticket,
            device=spec.device,
            within_s=timeout_s,
            where=backends.where,
        ):
            answer = backends.dispatcher.infer(hint, data, device=spec.device, timeout_s=timeout_s)
    except TimeoutError as err:
        raise TimedOut(
            what=f"inference with job {spec.id}",
            after_s=timeout_s,
            hint="is a worker running and free? see `kubeml status`",
        ) from err
    if "error" in answer:
        raise UserCodeError(
            where="infer",
            fault=answer["error"],
            user_traceback=answer["traceback"],
            hint=answer["hint"],
        )
    return answer["predictions"]
