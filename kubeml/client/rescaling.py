"""Changing what a job's slots N and workers W may be, while it runs.

The change is written to S3 first, create-only and numbered, where the scheduler and whoever
rebuilds the job find it; the head of the live state is told after that, so that W changes at once.
"""

import time
from contextlib import suppress
from dataclasses import replace

from brokers.rounds.store import RoundStore
from kubeml.backends import Backends
from kubeml.errors import BackendUnreachable, Conflict, InvalidOption, ObjectExists
from kubeml.jobs.scale import Scale, parse_range
from kubeml.jobs.spec import JobSpec, State


def rescale(
    backends: Backends, job_id: str, parallelism: str | int | None, max_workers: int | None
) -> Scale:
    """Change a running job's scale; see ``Job.scale``."""
    if parallelism is None and max_workers is None:
        raise InvalidOption(
            option="the number of slots",
            got="missing",
            expected="4, or 2:16, or --max-workers",
            hint=f"kubeml task scale --id {job_id} 2:16",
        )
    asked = None if parallelism is None else parse_range("the number of slots", parallelism)
    spec = backends.records.spec(job_id)
    num_rows = backends.datasets.at(spec.dataset, spec.dataset_version).train.num_rows
    store = RoundStore(backends.redis, job_id, where=backends.where)
    _require_running(backends, store)
    scale = _written(backends, spec, asked, max_workers, num_rows)
    with suppress(BackendUnreachable):  # the scheduler tells the head, before the next epoch
        _tell(backends, store, scale)
    return scale


def _written(
    backends: Backends,
    spec: JobSpec,
    asked: tuple[int, int] | None,
    max_workers: int | None,
    num_rows: int,
) -> Scale:
    while True:
        scale = backends.records.scale(spec)
        scale = replace(scale, number=scale.number + 1, at=time.time())
        if asked is not None:
            scale = replace(scale, floor=asked[0], ceiling=asked[1])
        if max_workers is not None:
            scale = replace(scale, max_workers=max_workers)
        scale.check(num_rows)
        try:
            backends.records.add_scale(spec.id, scale)
        except ObjectExists:
            continue  # somebody else was faster: what he did not ask for stays as he has it
        return scale


def _require_running(backends: Backends, store: RoundStore) -> None:
    head = store.head()
    end = backends.records.end(store.job_id)
    if end is not None:
        raise Conflict(what=f"job {store.job_id} has ended already: {end.state}")
    if head and State(head.state).is_final:
        raise Conflict(
            what=f"job {store.job_id} is just ending",
            hint=f"see kubeml task show --id {store.job_id}",
        )


def _tell(backends: Backends, store: RoundStore, scale: Scale) -> None:
    answer = "GONE"
    while answer == "GONE":  # rebuilt between the two calls: tell the new generation
        head = store.head()
        if not head:
            return  # lost: who rebuilds it reads the scale
        answer = store.scale(head.gen, scale.number, scale.floor, scale.ceiling, scale.max_workers)
    if answer == "FINAL":
        _require_running(backends, store)
