"""Reads what crosses a process border: JSON of bounded size becomes typed values or is refused."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import msgspec

from brokers.errors import MalformedMessage

T = TypeVar("T")

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")

#: The most that a peer may send, so that a forged message cannot make us allocate at will.
MAX_META_CHARS = 100_000

_MAX_FAULT_CHARS = 300


def is_job_id(text: object) -> bool:
    """Return whether ``text`` may be a job id. Job ids become keys on every store."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


def parse_object(
    text: str | bytes, *, what: str, max_chars: int = MAX_META_CHARS
) -> dict[str, Any]:
    """Parse a JSON object of bounded size.

    Raises:
        MalformedMessage: The text is too long, not JSON, or not an object.
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


def from_wire(cls: type[T], wire: Any, *, what: str) -> T:
    """Build a value from its wire form. Missing or unknown fields and wrong types are refused.

    Args:
        cls: A dataclass or ``msgspec.Struct``: its annotations are checked, with their
            constraints.
        wire: The parsed JSON.
        what: What it should be, for messages.

    Raises:
        MalformedMessage: The fields do not fit.
    """
    try:
        value = msgspec.convert(wire, cls)
    except msgspec.ValidationError as err:
        raise MalformedMessage(what=what, fault=_fault(str(err), wire)) from err
    except AttributeError as err:  # the class's own check met a value of the wrong type
        raise MalformedMessage(what=what, fault=str(err)) from err
    # A Struct refuses unknown fields by itself.
    if is_dataclass(cls) and (unknown := wire.keys() - {field.name for field in fields(cls)}):
        raise MalformedMessage(what=what, fault=f"{min(unknown)} is no field of it")
    return value


def _fault(text: str, wire: Any) -> str:
    """Return msgspec's text with the value in question: ``train.num_rows is '5': expected int``."""
    expected, _, path = text.partition(" - at `$.")
    if not path:
        return text[:_MAX_FAULT_CHARS]
    path, value = path.rstrip("`"), wire
    for step in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(step)] if isinstance(value, list | tuple) else value[step]
        except (KeyError, IndexError, ValueError, TypeError):
            return f"{path}: {expected}"[:_MAX_FAULT_CHARS]
    return f"{path} is {str(value)[:80]!r}: {expected[:1].lower()}{expected[1:]}"[:_MAX_FAULT_CHARS]


def new_id() -> str:
    """Return a fresh uuid as 32 hexadecimal digits: a token, ticket, rid or cid."""
    return uuid.uuid4().hex


def as_text(raw: bytes) -> str:
    """Return bytes as text, whatever they are."""
    return raw.decode(errors="replace")


def as_fields(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return a hash's fields and values as text."""
    return {as_text(name): as_text(value) for name, value in raw.items()}


def to_bytes(text: str, *, max_chars: int) -> bytes:
    """Return a text cut and encoded for Redis; half a surrogate pair becomes ``?``."""
    return text[:max_chars].encode(errors="replace")
