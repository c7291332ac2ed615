"""What crosses a process border: JSON of bounded size, made into typed values or refused."""

import json
import re
import uuid
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from brokers.errors import MalformedMessage

T = TypeVar("T")

#: What JSON may hold where a value is to have this type.
_JSON_TYPES: dict[Any, tuple[type, ...]] = {
    str: (str,), int: (int,), float: (float, int), bool: (bool,), NoneType: (NoneType,),
}  # fmt: skip

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")

#: Bound of what a peer may announce, so that a forged message cannot make us allocate at will.
MAX_META_CHARS = 100_000


def is_job_id(text: object) -> bool:
    """Whether ``text`` may be a job id (they become keys on every store)."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


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


def new_id() -> str:
    """A fresh uuid, as 32 hexadecimal digits: a token, ticket, rid or cid."""
    return uuid.uuid4().hex


def as_text(raw: bytes) -> str:
    """The text, whatever bytes it has."""
    return raw.decode(errors="replace")


def as_fields(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """A hash's fields and values as text."""
    return {as_text(name): as_text(value) for name, value in raw.items()}


def to_bytes(text: str, *, max_chars: int) -> bytes:
    """So much of a text as Redis can store it: what has no encoding (half a pair) becomes ``?``."""
    return text[:max_chars].encode(errors="replace")
