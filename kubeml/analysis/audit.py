"""The audit: how often each training row counted in the weights of each epoch. Pure.

The plan says which rows belong to each (round, slot); the ledger says which (round, slot) pairs
were merged. Together they prove that every sample counted once, whatever died on the way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from brokers.shards.manifest import DatasetManifest
from kubeml.jobs.plan import epoch_plan
from kubeml.jobs.results import EpochRow
from kubeml.jobs.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """An attempt at a slot that came to nothing; the slot was trained again.

    Attributes:
        stage: RUN (training) or VAL.
        round, slot, attempt: Which attempt it was; rounds count from 0, attempts from 1.
        worker, token: The worker that made it, and its token as a participant.
        kind: ``lost`` (its lease ran out), ``error`` (the function raised), ``bad`` (the
            contribution was refused), ``drain`` (the worker was told to go).
        why: The reason, for people.
        at: When it failed, in Unix seconds by the state server's clock.
    """

    stage: str
    round: int
    slot: int
    attempt: int
    worker: str
    token: str
    kind: str
    why: str
    at: float


@dataclass(frozen=True, kw_only=True)
class WorkerShare:
    """What one worker did in an epoch: the (round, slot) pairs that counted, and their rows."""

    worker: str
    slots: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class EpochAudit:
    """How one epoch's rows counted.

    Attributes:
        epoch, gen, parallelism, rounds: Which epoch, in which generation, with which N.
        rows: Rows of the training set.
        counted_0, counted_1, counted_more: How many rows counted never, once, and more often.
        shares: Which worker trained what.
        failed: The attempts that came to nothing.
        faults: What is wrong, for people; empty if every row counted once.
    """

    epoch: int
    gen: int
    parallelism: int
    rounds: int
    rows: int
    counted_0: int
    counted_1: int
    counted_more: int
    shares: list[WorkerShare]
    failed: list[FailedAttempt]
    faults: list[str]


@dataclass(frozen=True, kw_only=True)
class JobAudit:
    """A job's audit.

    Attributes:
        job_id: The job.
        epochs: One for each epoch in the history.
        generations: Number, reason and time of each generation. After a loss of the live state
            there is more than one.
        faults: What is wrong with the records as a whole.
    """

    job_id: str
    epochs: list[EpochAudit]
    generations: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def all_faults(self) -> list[str]:
        """Everything that is wrong."""
        return self.faults + [fault for epoch in self.epochs for fault in epoch.faults]

    @property
    def is_exact(self) -> bool:
        """Whether every row counted exactly once in every epoch, and the records agree."""
        return not self.all_faults

    def to_wire(self) -> dict[str, Any]:
        """Return the audit as JSON-able values."""
        return {**asdict(self), "is_exact": self.is_exact}


def audit_epoch(
    spec: JobSpec, manifest: DatasetManifest, row: EpochRow, ledger: Mapping[str, Any] | None
) -> EpochAudit:
    """Count how often each training row entered the weights of an epoch.

    Args:
        spec: The job's spec.
        manifest: Its dataset.
        row: The epoch's history row.
        ledger: The epoch's ledger as S3 has it; None if there is none.
    """
    plan = epoch_plan(spec, manifest, row.epoch, row.parallelism)
    times = np.zeros(plan.num_rows, dtype=np.int32)
    faults: list[str] = []
    shares: dict[str, tuple[int, int]] = {}
    if ledger is None:
        faults.append(f"epoch {row.epoch} has no ledger")
        ledger = {"rounds": {}}
    for text, entries in sorted(ledger["rounds"].items(), key=lambda item: int(item[0])):
        index = int(text)
        for entry in entries:
            slot, samples = entry["slot"], entry["samples"]
            if not (0 <= index < plan.num_rounds and 0 <= slot < plan.want(index)):
                faults.append(f"epoch {row.epoch}: round {index}, slot {slot} is not in the plan")
                continue
            rows = plan.rows(index, slot)
            np.add.at(times, rows, 1)
            if samples != len(rows):
                faults.append(
                    f"epoch {row.epoch}: round {index}, slot {slot} handed in {samples} rows "
                    f"of {len(rows)}"
                )
            slots, before = shares.get(entry["worker"], (0, 0))
            shares[entry["worker"]] = (slots + 1, before + len(rows))
    counted = [int(np.count_nonzero(times == n)) for n in (0, 1)]
    more = plan.num_rows - sum(counted)
    if counted[0] or more:
        faults.append(
            f"epoch {row.epoch}: {counted[0]} rows counted 0 times, {more} more than once"
        )
    return EpochAudit(
        epoch=row.epoch,
        gen=int(ledger.get("gen", 1)),
        parallelism=row.parallelism,
        rounds=plan.num_rounds,
        rows=plan.num_rows,
        counted_0=counted[0],
        counted_1=counted[1],
        counted_more=more,
        shares=[WorkerShare(worker=w, slots=s, rows=r) for w, (s, r) in sorted(shares.items())],
        failed=[FailedAttempt(**attempt) for attempt in ledger.get("failed", [])],
        faults=faults,
    )


def row_faults(rows: Sequence[EpochRow], checkpoints: Mapping[int, str]) -> list[str]:
    """Return what is wrong between the history and the checkpoints.

    Args:
        rows: The history.
        checkpoints: Epoch to the SHA-256 of the weights in its checkpoint manifest.
    """
    faults = []
    if [row.epoch for row in rows] != list(range(1, len(rows) + 1)):
        faults.append(f"the history has epochs {[row.epoch for row in rows]}")
    for row in rows:
        found = checkpoints.get(row.epoch)
        if found is None:
            faults.append(f"epoch {row.epoch} has no checkpoint")
        elif found != row.weights_sha256:
            faults.append(f"epoch {row.epoch}: its checkpoint holds other weights than its row")
    return faults
