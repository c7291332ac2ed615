"""A training job: what was asked for, the states it passes through, and its history rows. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from brokers.wire import from_wire
from kubeml.jobs.options import MAX_PARALLELISM, TrainOptions
from kubeml.validation import check_int, refuse

#: The order in which version 0.2.0 wrote a spec's fields; newer ones follow.
_WRITTEN_FIRST = (
    "id",
    "function",
    "function_sha256",
    "entry",
    "dataset",
    "dataset_version",
    "epochs",
    "batch_size",
    "lr",
    "parallelism",
    "max_parallelism",
    "static",
    "k",
    "validate_every",
    "goal_accuracy",
    "seed",
    "shuffle",
    "optimizer_state",
    "outer",
    "outer_lr",
    "outer_momentum",
    "wire",
    "device",
    "max_errors",
    "overlap",
    "min_parallelism",
    "policy",
    "deadline_s",
    "max_workers",
    "priority",
    "hedge",
    "created_at",
)


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


@dataclass(frozen=True, kw_only=True)
class JobSpec(TrainOptions):
    """What a job was asked to do; written once to S3, never changed.

    These are the options of ``TrainOptions``, and beside them:

    Attributes:
        id: Job id, unique for ever.
        function, function_sha256: The user's bundle, by name and content.
        entry: The bundle's file that defines ``main``.
        dataset, dataset_version: The dataset, by name and the version of its manifest.
        parallelism: Number of slots N in the first epoch (in every epoch, if ``static``).
        max_parallelism: Ceiling of N, for the policy; ``min_parallelism`` is its floor.
        created_at: Unix seconds, the client's clock; for people only.
    """

    id: str
    function: str
    function_sha256: str
    entry: str
    dataset: str
    dataset_version: str
    # Settled: a user may ask for a range of slots, or leave these out.
    parallelism: int = 2
    max_parallelism: int = 16
    seed: int = 0
    created_at: float = 0.0

    def check(self) -> None:
        """Refuse values out of range, and those that do not go together, naming the flag.

        Raises:
            InvalidOption: The first one found.
        """
        self.check_each()
        check_int(
            "--max-parallelism", self.max_parallelism, low=self.parallelism, high=MAX_PARALLELISM
        )
        check_int("--parallelism (its floor)", self.min_parallelism, low=1, high=self.parallelism)
        if self.deadline_s != 0 and (self.static or self.policy != "efficiency"):
            other = "--static" if self.static else f"--policy {self.policy}"
            refuse("--deadline", f"given with {other}", "--policy efficiency, which heeds it")
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
        wire = asdict(self)
        return {name: wire.pop(name) for name in _WRITTEN_FIRST} | wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read a spec; refuse missing and unknown fields alike.

        Raises:
            MalformedMessage: It is not a job spec.
        """
        return from_wire(cls, wire, what="job spec")


#: The stage that participants of a state serve.
STAGE_OF: dict[str, str] = {State.INIT: "init", State.RUN: "train", State.VAL: "validate"}
