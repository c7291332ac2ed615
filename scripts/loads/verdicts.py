"""What became of the jobs of a load, and whether that is what must have become of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from brokers.rounds.index import live_jobs
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.jobs.spec import State
from scripts.benchmarks import pool
from scripts.benchmarks.patience import patiently
from scripts.loads.shapes import Shape, submit
from scripts.loads.traces import Trace, trace

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job of a load, with what was asked for."""

    job: Job
    shape: Shape
    weight: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        job_id, shape, weight: Which job.
        state: How it ended; RUN if it has not.
        epochs: Epochs it has done.
        elapsed_s: From the submission to the end.
        retries: Slots that were trained again.
        workers: Workers that had a part in it.
        bits: ``same`` weights after each epoch as the same job alone, ``other``, or ``-``: not
            known beforehand, as the job is elastic.
        trace: Who trained it when; None if nobody did.
        faults: What is wrong, for people; empty if all is as it must be.
    """

    job_id: str
    shape: str
    weight: int
    state: str
    epochs: int
    elapsed_s: float
    retries: int
    workers: int
    bits: str
    trace: Trace | None
    faults: Sequence[str]

    def to_wire(self) -> dict[str, Any]:
        """The outcome as JSON-able values."""
        waits = {
            "first_wait_s": self.trace.first_wait_s if self.trace else None,
            "longest_wait_s": self.trace.longest_wait_s if self.trace else None,
        }
        names = (
            "job_id", "shape", "weight", "state", "epochs", "elapsed_s", "retries", "workers",
            "bits",
        )  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        return {**own, **waits, "faults": list(self.faults)}


class References:
    """The weights after each epoch of a static job that was trained alone; each trained once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, list[str]] = {}

    def weights(self, shape: Shape, epochs: int) -> list[str]:
        """Hashes of the weights after each of so many epochs, at least."""
        if len(self._known.get(shape.name, ())) < epochs:
            job = submit(self._client, shape, epochs=epochs, hedge=False)
            patiently(job.wait)
            self.note(shape, job)
        return self._known[shape.name]

    def note(self, shape: Shape, job: Job) -> None:
        """Take a job for one that was trained alone."""
        self._known[shape.name] = [row.weights_sha256 for row in job.history()]


def wait_for_all(client: Client, jobs: Sequence[Submitted], *, within_s: float) -> bool:
    """Wait until all jobs have ended; whether they have."""
    deadline = time.monotonic() + within_s
    while left := unended(client, jobs):
        if time.monotonic() > deadline:
            for submitted in left:
                pool.stop(submitted.job)
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def unended(client: Client, jobs: Sequence[Submitted]) -> list[Submitted]:
    """The jobs that have not ended, by their records."""
    live = set(patiently(lambda: live_jobs(client.backends.redis)))
    return [
        s
        for s in jobs
        if s.job.id in live or patiently(lambda s=s: client.backends.records.end(s.job.id)) is None
    ]


def judge_all(client: Client, jobs: Sequence[Submitted], references: References) -> list[Outcome]:
    """What became of each job."""
    return [patiently(lambda s=s: judge(client, s, references)) for s in jobs]


def judge(client: Client, submitted: Submitted, references: References) -> Outcome:
    """Look at an ended job: DONE, every row counted once, the weights of the same job alone."""
    job, shape = submitted.job, submitted.shape
    end, rows, audit = client.backends.records.end(job.id), job.history(), job.audit(verify=True)
    state = str(end.state) if end else "RUN"
    faults = list(audit.all_faults)
    if state != State.DONE:
        why = end.reason.splitlines()[:1] if end else ["not within the time given to it"]
        faults.append(f"{state}, expected DONE: {''.join(why)}")
    bits = "-"
    if shape.static:
        alone = references.weights(shape, job.spec.epochs)
        wrong = [r.epoch for r in rows if r.weights_sha256 != alone[r.epoch - 1]]
        bits = "other" if wrong else "same"
        if wrong:
            faults.append(f"epoch {wrong[0]}: other weights than those of the same job alone")
    course = pool.rounds(client, job)
    return Outcome(
        job_id=job.id, shape=shape.name, weight=submitted.weight, state=state, epochs=len(rows),
        elapsed_s=end.elapsed_s if end else 0.0, retries=sum(row.retries for row in rows),
        workers=len({h.worker for round_ in course for h in round_.holdings}), bits=bits,
        trace=trace(job.id, submitted.weight, job.spec.created_at, course), faults=faults,
    )  # fmt: skip
