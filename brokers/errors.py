"""Errors of the broker layer.

The libraries' own errors are mapped to these in one place for each kind of server:
``brokers.state.error_mapping`` and ``brokers.objects.error_mapping``.

    KubemlError                 everything kubeml raises on purpose
    ├── BackendUnreachable      Redis or S3 does not answer (exit 5)
    │   └── OutcomeUnknown      and it is unknown whether it did what it was asked to
    ├── BackendRefused          it answers, and refuses (exit 5)
    │   └── BucketMissing       S3 has no such bucket
    ├── ObjectMissing           an S3 object that should exist does not
    ├── ObjectExists            a create-only put lost the race (exit 4)
    ├── ChunksMissing           tensor chunks expired or were dropped
    ├── Corrupted               bytes do not match their checksum or hash
    ├── InvalidSetting          a setting cannot be read (exit 2)
    └── MalformedMessage        a value from the wire does not parse

``kubeml.errors`` holds the rest of the tree.
"""

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar


@dataclass(eq=False, kw_only=True)
class KubemlError(Exception):
    """Base of the errors kubeml raises on purpose: fields are facts, ``hint`` the next step."""

    exit_code: ClassVar[int] = 1
    hint: str = ""

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        # Celery's children pickle exceptions to their parent, which rebuilds them without keywords.
        return partial(type(self), **{f.name: getattr(self, f.name) for f in fields(self)}), ()


@dataclass(eq=False, kw_only=True)
class BackendUnreachable(KubemlError):
    """A server kubeml needs does not answer."""

    backend: str
    where: str
    detail: str = ""
    exit_code: ClassVar[int] = 5
    hint: str = (
        "is it running, and is this its address? `kubeml up` starts a stack of your own, "
        "`kubeml doctor` looks at all servers"
    )

    def __str__(self) -> str:
        tail = f" ({self.detail})" if self.detail else ""
        return f"{self.backend} at {self.where} does not answer{tail}"


@dataclass(eq=False, kw_only=True)
class OutcomeUnknown(BackendUnreachable):
    """S3 was asked to create an object, and it is unknown whether it did."""

    backend: str = "s3"
    key: str
    hint: str = "when S3 answers again, look whether it is there before you create it again"

    def __str__(self) -> str:
        tail = f" ({self.detail})" if self.detail else ""
        return f"s3 at {self.where}: it is not known whether {self.key!r} was written{tail}"


@dataclass(eq=False, kw_only=True)
class BackendRefused(KubemlError):
    """A server answers and refuses the request (credentials, memory, permissions)."""

    backend: str
    where: str
    detail: str
    exit_code: ClassVar[int] = 5
    hint: str = "check it with `kubeml doctor`"

    def __str__(self) -> str:
        return f"{self.backend} at {self.where} refused: {self.detail}"


@dataclass(eq=False, kw_only=True)
class BucketMissing(BackendRefused):
    """S3 answers, and has no such bucket."""

    backend: str = "s3"
    detail: str = "NoSuchBucket"
    bucket: str
    hint: str = "is KUBEML_S3_BUCKET right? `kubeml up` makes the bucket of its own stack"

    def __str__(self) -> str:
        return f"s3 at {self.where} has no bucket {self.bucket!r}"


@dataclass(eq=False, kw_only=True)
class ObjectMissing(KubemlError):
    """An S3 object that was asked for does not exist."""

    key: str
    exit_code: ClassVar[int] = 3

    def __str__(self) -> str:
        return f"object {self.key!r} does not exist"


@dataclass(eq=False, kw_only=True)
class ObjectExists(KubemlError):
    """A create-only put found the object there already."""

    key: str
    exit_code: ClassVar[int] = 4

    def __str__(self) -> str:
        return f"object {self.key!r} exists already"


@dataclass(eq=False, kw_only=True)
class ChunksMissing(KubemlError):
    """Some chunks of a set of tensors are not on the state server (any more)."""

    key: str
    missing: int
    expected: int

    def __str__(self) -> str:
        return f"{self.key}: {self.missing} of {self.expected} chunks are missing"


@dataclass(eq=False, kw_only=True)
class Corrupted(KubemlError):
    """Bytes do not have the checksum, hash or length they were stored with."""

    what: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.what} is corrupt: got {self.got}, expected {self.expected}"


@dataclass(eq=False, kw_only=True)
class InvalidSetting(KubemlError):
    """A setting is unknown or cannot be read."""

    setting: str
    fault: str
    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        return f"setting {self.setting}: {self.fault}"


@dataclass(eq=False, kw_only=True)
class MalformedMessage(KubemlError):
    """A value from the wire does not parse or breaks its bounds."""

    what: str
    fault: str

    def __str__(self) -> str:
        return f"malformed {self.what}: {self.fault}"


def brief(err: BaseException) -> str:
    """Return an error's first line, cut for a terminal; libraries put no secrets there."""
    text = str(err).strip().splitlines()
    return (text[0] if text else type(err).__name__)[:200]
