"""What a job came to: a row for each epoch, its end, and its status as people see it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from brokers.wire import from_wire
from kubeml.errors import MalformedMessage
from kubeml.jobs.spec import JobSpec, State


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One row of a job's history.

    Attributes:
        epoch: From 1.
        parallelism: Number of slots N it was trained with.
        num_workers: Distinct workers whose contributions were merged.
        rounds, steps: Merges, and optimizer steps over all slots.
        samples: Rows that counted.
        train_loss: Mean of the losses that ``train`` returned, weighted by samples.
        val_loss, accuracy: Sample-weighted validation; None where none was due.
        duration_s: The epoch's own training time, PLAN to the last merge.
        validation_s: Time of its validation.
        retries: Slots trained again (lost, failed or refused contributions).
        decision: Why the scheduler chose this parallelism.
        weights_sha256: SHA-256 of the epoch's weights blob.
        ended_at: Unix seconds.
        expected_s: What the scheduler expected ``duration_s`` to be; None if it could not know.
        mean_workers: Workers in a round, their mean; None if no round has timings.
        phases: Where the time went: each phase of ``kubeml.jobs.round_times``, and ``ahead``, to
            its seconds, the means of the slots summed over the rounds; empty if not known.
    """

    epoch: int
    parallelism: int
    num_workers: int
    rounds: int
    steps: int
    samples: int
    train_loss: float | None
    val_loss: float | None
    accuracy: float | None
    duration_s: float
    validation_s: float
    retries: int
    decision: str
    weights_sha256: str
    ended_at: float
    expected_s: float | None = None
    mean_workers: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """The row as JSON-able values (a non-finite loss becomes None)."""
        return {key: finite_or_none(value) for key, value in asdict(self).items()}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read a row.

        Raises:
            MalformedMessage: It is not a history row.
        """
        return from_wire(cls, wire, what="history row")


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended; written once.

    Attributes:
        state: DONE, FAILED or STOPPED.
        reason: Why, for people; the user's traceback if their code raised.
        epoch: Epochs that were finished.
        checkpoint: S3 key of the last merged weights ("" if there are none).
        weights_sha256: SHA-256 of that weights blob.
        accuracy, train_loss, val_loss: Of the last epoch that has them.
        elapsed_s: From submission to the end.
        ended_at: Unix seconds.
    """

    state: State
    reason: str
    epoch: int
    checkpoint: str
    weights_sha256: str
    accuracy: float | None
    train_loss: float | None
    val_loss: float | None
    elapsed_s: float
    ended_at: float

    def to_wire(self) -> dict[str, Any]:
        """The end as JSON-able values."""
        return {key: finite_or_none(value) for key, value in asdict(self).items()}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read an end.

        Raises:
            MalformedMessage: It is not one.
        """
        end = from_wire(cls, wire, what="job end")
        if end.state not in tuple(State):
            raise MalformedMessage(what="job end", fault=f"state is {end.state!r}")
        return replace(end, state=State(end.state))


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """A job as it stands now, for people and ``--json``.

    Attributes:
        id: Job id.
        state: Its state.
        reason: Why it failed, stopped or waits; "" otherwise.
        spec: What was asked for.
        epoch: Epoch under way, from 1 (0 before the first).
        round, rounds: Merges done and to be done in that epoch.
        version: Number of the last merged weights.
        parallelism: Slots N of that epoch.
        num_workers: Live participants.
        waiting: Dispatched work that no worker has picked up yet.
        floor, ceiling: Between what N may be in the next epoch; 0 once the job has ended.
        max_workers: Workers that may take part at a time; 0 for any number.
        last: The last history row, if any.
        end: How it ended, if it has.
        is_pending: Whether it is alive and no worker can serve it now; ``reason`` says why.
    """

    id: str
    state: State
    reason: str
    spec: JobSpec
    epoch: int = 0
    round: int = 0
    rounds: int = 0
    version: int = 0
    parallelism: int = 0
    num_workers: int = 0
    waiting: int = 0
    floor: int = 0
    ceiling: int = 0
    max_workers: int = 0
    last: EpochRow | None = field(default=None)
    end: JobEnd | None = field(default=None)
    is_pending: bool = False

    @property
    def shown_state(self) -> str:
        """The state for people and ``--json``: PENDING is none that the protocol knows."""
        return "PENDING" if self.is_pending else str(self.state)

    def to_wire(self) -> dict[str, Any]:
        """The status as JSON-able values."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "is_pending"},
            "state": self.shown_state,
            "spec": self.spec.to_wire(),
            "last": self.last.to_wire() if self.last else None,
            "end": self.end.to_wire() if self.end else None,
        }


def finite_or_none(value: Any) -> Any:
    """``value``, or None for NaN and infinities, which JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
