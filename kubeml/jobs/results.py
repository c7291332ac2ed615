"""The results of a job: a row for each epoch, its end, and its status as people see it."""

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
        epoch: The epoch, from 1.
        parallelism: Number of slots N it was trained with.
        num_workers: Number of distinct workers whose contributions were merged.
        rounds, steps: Number of merges, and of optimizer steps over all slots.
        samples: Number of rows that counted.
        train_loss: Mean of the losses that ``train`` returned, weighted by samples.
        val_loss, accuracy: Means of the validation, weighted by samples; None if none was due.
        duration_s: The epoch's training time, from PLAN to the last merge.
        validation_s: Time of its validation.
        retries: Slots trained again (lost, failed or refused contributions).
        decision: Why the scheduler chose this parallelism.
        weights_sha256: SHA-256 of the epoch's weights blob.
        ended_at: Unix seconds.
        expected_s: What the scheduler expected ``duration_s`` to be; None if it could not know.
        mean_workers: Mean number of workers in a round; None if no round has timings.
        phases: Where the time went: each phase of ``kubeml.jobs.round_times``, and ``ahead``, to
            its seconds. They are means over the slots, summed over the rounds; empty if unknown.
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
        """Return the row as JSON-able values; a non-finite loss becomes None."""
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
    """How a job ended; it is written once.

    Attributes:
        state: DONE, FAILED or STOPPED.
        reason: Why, for people; the user's traceback if their code raised.
        epoch: Number of epochs that were finished.
        checkpoint: S3 key of the last merged weights ("" if there are none).
        weights_sha256: SHA-256 of that weights blob.
        accuracy, train_loss, val_loss: Those of the last epoch that has them.
        elapsed_s: Seconds from submission to the end.
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
        """Return the end as JSON-able values."""
        return {key: finite_or_none(value) for key, value in asdict(self).items()}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read an end.

        Raises:
            MalformedMessage: It is not a job's end.
        """
        end = from_wire(cls, wire, what="job end")
        if end.state not in tuple(State):
            raise MalformedMessage(what="job end", fault=f"state is {end.state!r}")
        return replace(end, state=State(end.state))


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """A job as it is now, for people and ``--json``.

    Attributes:
        id: Job id.
        state: Its state.
        reason: Why it failed, stopped or waits; "" otherwise.
        spec: What was asked for.
        epoch: Epoch under way, from 1 (0 before the first).
        round, rounds: Merges that are done, and merges in all, in that epoch.
        version: Number of the last merged weights.
        parallelism: Slots N of that epoch.
        num_workers: Number of live participants.
        waiting: Number of dispatches that no worker has picked up yet.
        floor, ceiling: The bounds of N in the next epoch; 0 once the job has ended.
        max_workers: How many workers may take part at a time; 0: any number.
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
        """The state for people and ``--json``. The protocol itself knows no PENDING."""
        return "PENDING" if self.is_pending else str(self.state)

    def to_wire(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "is_pending"},
            "state": self.shown_state,
            "spec": self.spec.to_wire(),
            "last": self.last.to_wire() if self.last else None,
            "end": self.end.to_wire() if self.end else None,
        }


def finite_or_none(value: Any) -> Any:
    """Return ``value``; None for NaN and infinities, which JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
