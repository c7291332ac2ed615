"""A training job: what was asked for, the states it passes through, and its history rows. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from brokers.wire import from_wire
from kubeml.validation import check_choice, check_int, check_number, refuse
from kubeml.weights.wire_format import WIRES

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
#: What chooses N where the job is not static; see ``kubeml.scheduling.policies``.
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
        wire: How contributions travel; see ``kubeml.weights.wire_format``.
        overlap: Whether slots train on while a merge is under way; see
            ``kubeml.runtime.local_weights``.
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


#: The stage that participants of a state serve.
STAGE_OF: dict[str, str] = {State.INIT: "init", State.RUN: "train", State.VAL: "validate"}
