"""Values that cross a process border: frozen, strict, JSON on the wire."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from brokers.errors import MalformedMessage

T = TypeVar("T")

#: What JSON may hold where a value is to have this type.
_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,), int: (int,), float: (float, int), bool: (bool,), NoneType: (NoneType,),
}  # fmt: skip

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")

#: Bounds of what a peer may announce, so that a forged message cannot make us allocate at will.
MAX_TENSOR_BYTES = 64 * 2**30
MAX_META_CHARS = 100_000


def is_job_id(text: object) -> bool:
    """Whether ``text`` may be a job id (they become keys on every store)."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRef:
    """Where a blob of tensors lies on the state server.

    Attributes:
        key: Its chunks are ``{key}:{i}``.
        num_chunks: How many there are.
        num_bytes: Length of the blob.
        crc: Checksum of the blob; see ``brokers.tensor_channel.checksum``.
    """

    key: str
    num_chunks: int
    num_bytes: int
    crc: int

    def __post_init__(self) -> None:
        if not self.key.startswith("kml:") or len(self.key) > 200:
            raise MalformedMessage(what="tensor reference", fault=f"key {self.key[:80]!r}")
        if type(self.num_bytes) is not int or not 0 <= self.num_bytes <= MAX_TENSOR_BYTES:
            raise MalformedMessage(what="tensor reference", fault=f"{self.num_bytes!r} bytes")
        if type(self.num_chunks) is not int or not 1 <= self.num_chunks <= 2**20:
            raise MalformedMessage(what="tensor reference", fault=f"{self.num_chunks!r} chunks")

    def chunk_keys(self) -> list[str]:
        """The keys of its chunks, in order."""
        return [f"{self.key}:{i}" for i in range(self.num_chunks)]

    def to_json(self) -> str:
        """The reference as text, as it stands in the job's head."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a reference.

        Raises:
            MalformedMessage: It is not one.
        """
        return from_wire(cls, parse_object(text, what="tensor reference"), what="tensor reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a slot hands in for one round.

    Attributes:
        cid: A uuid for this set of pushed chunks.
        token: The execution that held the slot's lease.
        slot: The slot.
        worker: Name of the worker, for people and the ledger.
        attempt: How often the slot was begun in this round, from 1.
        num_samples: Rows trained or validated, > 0; the weight in the merge.
        num_steps: Optimizer steps made.
        loss: Mean loss over those rows, by samples (may be NaN, as text "nan").
        accuracy: Mean accuracy; validation alone.
        tensors: Where the contribution blob lies; "" for a validation.
        layout: Hash of the layout it has.
        optimizer: Reference to the optimizer state that goes with it; "" if none.
        timings: Seconds of each phase: fetch, data, compute, push.
    """

    cid: str
    token: str
    slot: int
    worker: str
    attempt: int
    num_samples: int
    num_steps: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    tensors: str = ""
    layout: str = ""
    optimizer: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = (self.tensors, self.layout, self.optimizer, self.cid, self.token)
        if not all(isinstance(text, str) for text in texts):
            raise MalformedMessage(what="contribution", fault=repr(self)[:200])
        if self.slot < 0 or self.num_samples <= 0 or self.num_steps < 0:
            raise MalformedMessage(what="contribution", fault=repr(self)[:200])

    @property
    def ref(self) -> TensorRef:
        """Where its tensors lie."""
        return TensorRef.from_json(self.tensors)

    def to_json(self) -> str:
        """The contribution as text, as it stands in the job's state."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a contribution; refuse missing and unknown fields alike.

        Raises:
            MalformedMessage: It is not one.
        """
        return from_wire(cls, parse_object(text, what="contribution"), what="contribution")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """The body of every message: look at this job. It may be lost, doubled or late.

    Attributes:
        job_id: The job.
        ticket: The dispatch this message stands for; "" for a hint to the parameter server.
    """

    job_id: str
    ticket: str = ""

    def __post_init__(self) -> None:
        if not is_job_id(self.job_id) or len(self.ticket) > 64:
            raise MalformedMessage(what="hint", fault=repr(self.job_id)[:80])

    def to_wire(self) -> dict[str, Any]:
        """The hint as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a hint; refuse missing and unknown fields alike.

        Raises:
            MalformedMessage: It is not one.
        """
        if not isinstance(wire, Mapping):
            raise MalformedMessage(what="hint", fault=f"{type(wire).__name__}, not an object")
        return from_wire(cls, wire, what="hint")


def parse_object(
    text: str | bytes, *, what: str, max_chars: int = MAX_META_CHARS
) -> dict[str, Any]:
    """Parse a JSON object of bounded size.

    Raises:
        MalformedMessage: Too long, not JSON, or not an object.
    """
    if len(text) > max_chars:
        raise MalformedMessage(what=what, fault=f"{len(text)} characters")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise MalformedMessage(what=what, fault=str(err)) from err
    if not isinstance(value, dict):
        raise MalformedMessage(what=what, fault=f"{type(value).__name__}, not an object")
    return value


def from_wire(cls: type[T], wire: Mapping[str, Any], *, what: str) -> T:
    """Build a frozen value from its wire form; missing and unknown fields are refused, and types.

    Raises:
        MalformedMessage: The fields do not fit.
    """
    if not isinstance(wire, Mapping):
        raise MalformedMessage(what=what, fault=f"{type(wire).__name__}, not an object")
    for name, allowed in _plain_fields(cls).items():  # type: ignore[arg-type]
        value = wire.get(name)
        # A bool is an int to Python, and not to us.
        if name in wire and (type(value) is bool) > (bool in allowed):
            raise MalformedMessage(what=what, fault=f"{name} is {value}")
        if name in wire and not isinstance(value, allowed):
            raise MalformedMessage(what=what, fault=f"{name} is {str(value)[:80]!r}")
    try:
        return cls(**wire)
    except (TypeError, ValueError, AttributeError) as err:
        raise MalformedMessage(what=what, fault=str(err)) from err


@lru_cache(maxsize=64)
def _plain_fields(cls: type) -> dict[str, tuple[type, ...]]:
    """Field to what JSON may hold there, for the fields that are plain values."""
    plain: dict[str, tuple[type, ...]] = {}
    for name, hint in get_type_hints(cls).items():
        types = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if all(one in _JSON_TYPES for one in types):
            plain[name] = tuple(kind for one in types for kind in _JSON_TYPES[one])
        elif get_origin(hint) is Mapping:
            plain[name] = (Mapping,)
    return plain
