"""What can go wrong, for people: every class says what happened and what to do next.

KubemlError (brokers.errors)        exit 1
├── InvalidOption                   exit 2   a flag, argument or field out of range
├── NotFound                        exit 3
│   ├── FunctionNotFound, DatasetNotFound, JobNotFound
├── NameTaken, Conflict             exit 4
├── BackendUnreachable              exit 5   (brokers.errors)
├── InvalidDataset, InvalidFunction exit 6
├── Interrupted                     exit 130 by Ctrl-C, with something to tell
├── JobFailed                       exit 1
├── JobStopped                      exit 7
├── TimedOut                        exit 8
├── UserCodeError                   the user's own code raised
└── MergeRefused                    LayoutMismatch, NonFinite, BufferConflict
"""

from dataclasses import dataclass
from typing import ClassVar

from brokers.errors import (
    BackendRefused,
    BackendUnreachable,
    BucketMissing,
    ChunksMissing,
    Corrupted,
    InvalidSetting,
    KubemlError,
    MalformedMessage,
    ObjectExists,
    ObjectMissing,
    OutcomeUnknown,
)

__all__ = [
    "Abandoned",
    "BackendRefused",
    "BackendUnreachable",
    "BucketMissing",
    "BufferConflict",
    "ChunksMissing",
    "Conflict",
    "Corrupted",
    "DatasetNotFound",
    "FunctionNotFound",
    "Interrupted",
    "InvalidDataset",
    "InvalidFunction",
    "InvalidOption",
    "InvalidSetting",
    "JobFailed",
    "JobNotFound",
    "JobStopped",
    "KubemlError",
    "LayoutMismatch",
    "MalformedMessage",
    "MergeRefused",
    "NameTaken",
    "NonFinite",
    "NotFound",
    "ObjectExists",
    "ObjectMissing",
    "OutcomeUnknown",
    "TimedOut",
    "UserCodeError",
]


class Abandoned(Exception):
    """Raised through user code to drop the work in hand; nothing went wrong."""


@dataclass(eq=False, kw_only=True)
class InvalidOption(KubemlError):
    """An option or argument is out of range."""

    option: str
    got: str
    expected: str
    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        return f"{self.option} is {self.got}, expected {self.expected}"


@dataclass(eq=False, kw_only=True)
class NotFound(KubemlError):
    """Something asked for by name does not exist."""

    kind: ClassVar[str] = "object"
    name: str
    exit_code: ClassVar[int] = 3

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} does not exist"


@dataclass(eq=False, kw_only=True)
class FunctionNotFound(NotFound):
    """No function has this name."""

    kind: ClassVar[str] = "function"
    hint: str = "see `kubeml function list`"


@dataclass(eq=False, kw_only=True)
class DatasetNotFound(NotFound):
    """No dataset has this name."""

    kind: ClassVar[str] = "dataset"
    hint: str = "see `kubeml dataset list`"


@dataclass(eq=False, kw_only=True)
class JobNotFound(NotFound):
    """No job has this id."""

    kind: ClassVar[str] = "job"
    hint: str = "see `kubeml task list` and `kubeml history list`"


@dataclass(eq=False, kw_only=True)
class NameTaken(KubemlError):
    """A function or dataset of this name exists already."""

    kind: str
    name: str
    exit_code: ClassVar[int] = 4

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} exists already"


@dataclass(eq=False, kw_only=True)
class Conflict(KubemlError):
    """The thing is not in a state that allows this."""

    what: str
    exit_code: ClassVar[int] = 4

    def __str__(self) -> str:
        return self.what


@dataclass(eq=False, kw_only=True)
class Interrupted(KubemlError):
    """Ctrl-C ended a command that leaves something behind."""

    what: str
    exit_code: ClassVar[int] = 130

    def __str__(self) -> str:
        return self.what


@dataclass(eq=False, kw_only=True)
class InvalidDataset(KubemlError):
    """A data file cannot be used for training."""

    where: str
    fault: str
    exit_code: ClassVar[int] = 6

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}"


@dataclass(eq=False, kw_only=True)
class InvalidFunction(KubemlError):
    """A user's code file cannot be used; ``user_traceback`` shows where in their code."""

    where: str
    fault: str
    user_traceback: str = ""
    exit_code: ClassVar[int] = 6

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}"


@dataclass(eq=False, kw_only=True)
class JobFailed(KubemlError):
    """A job ended FAILED; ``reason`` holds the first cause, with the user's traceback if any."""

    job_id: str
    reason: str
    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return f"job {self.job_id} failed: {self.reason}"


@dataclass(eq=False, kw_only=True)
class JobStopped(KubemlError):
    """A job was stopped before its last epoch."""

    job_id: str
    exit_code: ClassVar[int] = 7

    def __str__(self) -> str:
        return f"job {self.job_id} was stopped"


@dataclass(eq=False, kw_only=True)
class TimedOut(KubemlError):
    """Something did not happen in the time given for it."""

    what: str
    after_s: float
    exit_code: ClassVar[int] = 8

    def __str__(self) -> str:
        return f"{self.what} took longer than {self.after_s:g} s"


@dataclass(eq=False, kw_only=True)
class UserCodeError(KubemlError):
    """The user's own code raised; ``user_traceback`` starts in their file."""

    where: str
    fault: str
    user_traceback: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}"


@dataclass(eq=False, kw_only=True)
class MergeRefused(KubemlError):
    """A contribution cannot enter a merge."""

    slot: int
    tensor: str


@dataclass(eq=False, kw_only=True)
class LayoutMismatch(MergeRefused):
    """A slot's tensors do not have the names, shapes and dtypes the job began with."""

    expected: str
    got: str
    exit_code: ClassVar[int] = 6
    hint: str = "create every layer in the network's __init__, none on the first batch"

    def __str__(self) -> str:
        return f"slot {self.slot}: tensor {self.tensor!r} is {self.got}, expected {self.expected}"


@dataclass(eq=False, kw_only=True)
class NonFinite(MergeRefused):
    """A slot contributed NaN or infinity."""

    hint: str = "lower --lr, or clip the gradients in train()"

    def __str__(self) -> str:
        return f"slot {self.slot}: tensor {self.tensor!r} has NaN or infinite values"


@dataclass(eq=False, kw_only=True)
class BufferConflict(MergeRefused):
    """Slots disagree on an integer or bool buffer that has no meaningful mean."""

    hint: str = "register the buffer with persistent=False, or keep it the same in every slot"

    def __str__(self) -> str:
        return f"slot {self.slot}: buffer {self.tensor!r} differs between slots"
