"""Text that is read from the servers and that users, or an earlier version, may have had a hand in.

What cannot be decoded becomes U+FFFD. A text that nobody can read whole is no reason not to read
the rest, and must never keep a job from going on or ending.
"""

from collections.abc import Mapping


def as_text(raw: bytes) -> str:
    """The text, whatever bytes it has."""
    return raw.decode(errors="replace")


def as_fields(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """A hash's fields and values as text."""
    return {as_text(name): as_text(value) for name, value in raw.items()}


def to_bytes(text: str, *, max_chars: int) -> bytes:
    """So much of a text as Redis can store it: what has no encoding (half a pair) becomes ``?``."""
    return text[:max_chars].encode(errors="replace")
