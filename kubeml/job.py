"""A training job: what was asked for, the states it passes through, and its history rows. Pure."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from brokers.protocol import from_wire
from kubeml.checks import check_choice, check_int, check_number, refuse
from kubeml.errors import MalformedMessage
from kubeml.wire import WIRES

MAX_PARALLELISM = 256
MAX_EPOCHS = 100_000
MAX_BATCH = 1_000_000
MAX_WORKERS = 100_000
MAX_PRIORITY = 100


class State(StrEnum):
    """States of a job. Everything before DONE is alive; the last three never change again.

    INIT → PLAN → RUN → (VAL) → END → PLAN … → DONE; FAILED and STOPPED from any of them.
    """

    #: A worker is to initialise the weights.
    INIT = "INIT"
    #: The next epoch is to be planned by the scheduler.
    PLAN = "PLAN"
    #: Rounds of an epoch are being trained.
    RUN = "RUN"
    #: The epoch's weights are being validated.
    VAL = "VAL"
    #: The epoch is trained; its checkpoint and history row are to be written.
    END = "END"
    DONE = "DONE"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in {State.DONE, State.FAILED, State.STOPPED}


OPTIMIZER_STATES = ("reset", "local", "carry")
OUTER_OPTIMIZERS = ("mean", "nesterov", "slowmo")
#: What chooses N where the job is not static; see ``kubeml.policies``.
POLICIES = ("efficiency", "throughput")


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What a job was asked to do; written once to S3, never changed.

    Attributes:
        id: Job id, unique for ever.
        function, function_sha256: The user's bundle, by name and content.
        entry: The bundle's file that defines ``main``.
        dataset, dataset_version: The dataset, by name and the version of its manifest.
        epochs: Passes over the training set.
        batch_size: Rows per step.
        lr: Learning rate, as ``self.lr``.
        parallelism: Number of slots N in the first epoch (in every epoch, if ``static``).
        min_parallelism, max_parallelism: Floor and ceiling of N, for the policy.
        static: Whether N stays as it is.
        policy: What chooses N otherwise.
        deadline_s: Seconds from submission in which the job should have ended; 0 for none.
        max_workers: Workers that may take part at a time; 0 for any number.
        priority: Weight of the job where several share a pool: twice as much, twice the workers.
        hedge: Whether idle workers may train copies of slots that take much longer than others.
        k: Steps between two merges; -1 for one round per epoch.
        validate_every: Epochs between validations; 0 for the last epoch alone.
        goal_accuracy: Stop once a validation reaches this (percent); 0 for never.
        seed: Fixes initial weights, shuffling and augmentation.
        shuffle: Whether rows are shuffled anew each epoch.
        optimizer_state: What becomes of the inner optimizer's state between rounds.
        outer, outer_lr, outer_momentum: The outer optimizer.
        wire: How contributions travel; see ``kubeml.wire``.
        overlap: Whether slots train on while a merge is under way; see ``kubeml.local_weights``.
        device: ``cpu`` or ``gpu``: the queue that serves it.
        max_errors: Failures of one slot's work before the job is FAILED.
        created_at: Unix seconds, the client's clock; for people only.
    """

    id: str
    function: str
    function_sha256: str
    entry: str
    dataset: str
    dataset_version: str
    epochs: int
    batch_size: int
    lr: float
    parallelism: int = 2
    max_parallelism: int = 16
    static: bool = False
    k: int = -1
    validate_every: int = 1
    goal_accuracy: float = 0.0
    seed: int = 0
    shuffle: bool = True
    optimizer_state: str = "reset"
    outer: str = "mean"
    outer_lr: float = 1.0
    outer_momentum: float = 0.0
    wire: str = "fp32"
    device: str = "cpu"
    max_errors: int = 3
    overlap: bool = False
    min_parallelism: int = 1
    policy: str = "efficiency"
    deadline_s: float = 0.0
    max_workers: int = 0
    priority: int = 1
    hedge: bool = True
    created_at: float = 0.0

    def check(self) -> None:
        """Refuse values out of range, naming the flag.

        Raises:
            InvalidOption: The first one found.
        """
        check_int("--epochs", self.epochs, low=1, high=MAX_EPOCHS)
        check_int("--batch", self.batch_size, low=1, high=MAX_BATCH)
        check_number("--lr", self.lr, above=0.0)
        check_int("--parallelism", self.parallelism, low=1, high=MAX_PARALLELISM)
        check_int(
            "--max-parallelism", self.max_parallelism, low=self.parallelism, high=MAX_PARALLELISM
        )
        check_int("--parallelism (its floor)", self.min_parallelism, low=1, high=self.parallelism)
        check_choice("--policy", self.policy, POLICIES)
        check_int("--max-workers", self.max_workers, low=0, high=MAX_WORKERS)
        check_int("--priority", self.priority, low=1, high=MAX_PRIORITY)
        if self.deadline_s != 0:
            check_number("--deadline", self.deadline_s, above=0.0)
            if self.static or self.policy != "efficiency":
                other = "--static" if self.static else f"--policy {self.policy}"
                refuse("--deadline", f"given with {other}", "--policy efficiency, which heeds it")
        if self.k != -1:
            check_int("--K", self.k, low=1, high=2**31, also="-1 (one merge per epoch)")
        check_int("--validate-every", self.validate_every, low=0, high=MAX_EPOCHS)
        if not 0.0 <= self.goal_accuracy <= 100.0:
            refuse("--goal-accuracy", self.goal_accuracy, "a percentage from 0 to 100")
        check_int("--seed", self.seed, low=0, high=2**63 - 1)
        check_choice("--optimizer-state", self.optimizer_state, OPTIMIZER_STATES)
        check_choice("--outer", self.outer, OUTER_OPTIMIZERS)
        check_number("--outer-lr", self.outer_lr, above=0.0)
        if not 0.0 <= self.outer_momentum < 1.0:
            refuse("--outer-momentum", self.outer_momentum, "a number from 0 up to below 1")
        check_choice("--wire", self.wire, WIRES)
        check_choice("--device", self.device, ("cpu", "gpu"))
        check_int("--max-errors", self.max_errors, low=1, high=1000)
        if self.overlap and self.k == -1:
            refuse("--overlap", "given with --K -1", "a --K of 1 or more: one merge has no next")
        if self.overlap and self.wire != "fp32":
            refuse("--wire", f"{self.wire} with --overlap", "fp32: slots go on from what they sent")
        if self.overlap and self.optimizer_state == "local":
            # What was trained in vain would stay in it.
            refuse("--optimizer-state", "'local' with --overlap", "reset or carry")

    def check_against_data(self, num_rows: int) -> None:
        """Refuse a batch or a number of slots that the training set cannot fill.

        Raises:
            InvalidOption: More rows per batch, or more slots, than there are rows.
        """
        if self.batch_size > num_rows:
            refuse("--batch", self.batch_size, f"at most the {num_rows} rows of the training set")
        if self.parallelism > num_rows:
            refuse(
                "--parallelism",
                self.parallelism,
                f"at most the {num_rows} rows of the training set",
            )

    def validation_due(self, epoch: int) -> bool:
        """Whether ``epoch`` (from 1) ends with a validation."""
        if epoch >= self.epochs:
            return True
        return self.validate_every > 0 and epoch % self.validate_every == 0

    def to_wire(self) -> dict[str, Any]:
        """The spec as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read a spec; refuse missing and unknown fields alike.

        Raises:
            MalformedMessage: It is not a job spec.
        """
        return from_wire(cls, wire, what="job spec")


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
        phases: Where the time went: each phase of ``kubeml.round_times``, and ``ahead``, to its
            seconds, the means of the slots summed over the rounds; empty if not known.
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
