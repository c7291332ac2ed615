"""What a parameter server hears while it waits for contributions."""

from dataclasses import dataclass
from typing import Any, Self

from brokers.texts import as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """What was handed in since the last one.

    Attributes:
        id: To go on from.
        left: How many slots were left to hand in then, at the least; 0 also if somebody just wants
            the parameter server to look; -1 for no news.
        chunks: Keys of the (first) chunks that were handed in.
    """

    id: str
    left: int = -1
    chunks: tuple[str, ...] = ()

    @classmethod
    def from_answer(cls, answer: Any, after: str) -> Self:
        """Read what XREAD answers."""
        if not answer:
            return cls(id=after)
        # RESP2 puts each stream into a list of its own; RESP3 has a map.
        _, entries = answer[0] if isinstance(answer[0], list) else answer
        found = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]
        return cls(
            id=as_text(entries[-1][0]),
            left=min(int(fields.get(b"left", 0)) for fields in found),
            chunks=tuple(as_text(key) for fields in found if (key := fields.get(b"chunk"))),
        )
