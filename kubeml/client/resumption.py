"""Letting a job that has ended go on from its last checkpoint: another *life* of the same job.

The next life's spec is written create-only; from then on the job has not ended, by the records, and
whoever looks at it (a parameter server, if the client dies here) builds its next generation.
"""

from contextlib import suppress
from dataclasses import replace

from brokers.rounds.streams import JobStreams
from kubeml.backends import Backends
from kubeml.errors import BackendUnreachable, Conflict, InvalidFunction, InvalidOption, ObjectExists
from kubeml.jobs.options import MAX_EPOCHS
from kubeml.jobs.spec import JobSpec, State
from kubeml.validation import check_int
from kubeml.weights.layout import Layout


def resume(backends: Backends, job_id: str, *, function: str | None, epochs: int | None) -> None:
    """Begin a job's next life; see ``Job.resume``."""
    records = backends.records
    life = records.life(job_id)
    spec, end = records.spec(job_id, life), records.end(job_id, life)
    if end is None:
        # Whoever resumed it may have died before the job was on the list again.
        records.put_back(job_id)
        raise Conflict(what=f"job {job_id} has not ended", hint=f"kubeml task watch --id {job_id}")
    if epochs is not None:
        check_int("--epochs", epochs, low=1, high=MAX_EPOCHS)
        spec = replace(spec, epochs=epochs)
    if end.state is State.DONE and epochs is None:
        raise Conflict(
            what=f"job {job_id} is DONE: there is nothing to resume",
            hint=f"to train on: --epochs with more than {end.epoch}",
        )
    if spec.epochs <= end.epoch:
        raise InvalidOption(
            option="--epochs",
            got=str(spec.epochs),
            expected=f"more than the {end.epoch} it has done",
        )
    if function is not None:
        spec = _with_function(backends, spec, function)
    try:
        records.add_life(spec, life + 1)
    except ObjectExists as err:
        raise Conflict(what=f"job {job_id} is being resumed by somebody else") from err
    # From here on it is under way. A parameter server builds it: clients may not touch weights.
    with suppress(BackendUnreachable):
        JobStreams(backends.redis, job_id, where=backends.where).clear()
        backends.dispatcher.hint(job_id)


def _with_function(backends: Backends, spec: JobSpec, function: str) -> JobSpec:
    """The spec with another function, which must have the tensors the job began with."""
    info = backends.functions.show(function)
    if info.sha256 != spec.function_sha256:
        origin = backends.checkpoints.at(spec.id, 0)
        layout = backends.functions.layout(info, device=spec.device)
        if origin is not None and layout.hash != origin.layout.hash:
            raise InvalidFunction(
                where=f"function {function!r}",
                fault=f"its tensors are not those of job {spec.id}: "
                f"{_difference(origin.layout, layout)}",
                hint="train it as a new job",
            )
    return replace(spec, function=function, function_sha256=info.sha256, entry=info.entry)


def _difference(old: Layout, new: Layout) -> str:
    """The first tensor that two layouts do not agree on, for people."""
    before = {t.name: t for t in (*old.moving, *old.frozen)}
    after = {t.name: t for t in (*new.moving, *new.frozen)}
    for name, tensor in before.items():
        other = after.get(name)
        if other is None:
            return f"{name} is gone"
        if (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            was, now = (f"{t.dtype}{list(t.shape)}" for t in (tensor, other))
            return f"{name} was {was}, is {now}"
    new_names = [name for name in after if name not in before]
    return f"{new_names[0]} is new" if new_names else "other tensors are frozen or tied"
