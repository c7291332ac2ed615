"""A job's live state at one moment, as ``lua/look.lua`` reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from brokers.protocol import TensorRef
from brokers.texts import as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A job's head and contributions at one moment.

    Attributes:
        head: Field to value, as text; empty if there is no head.
        contributions: Slot to the contribution's JSON text.
        num_live: Participants seen within a lease.
        tickets: Unanswered dispatches, with the server time (ms) each was sent.
        optimizer: Slot to the reference of its optimizer state.
        local: Slot to the reference of its local weights (``--overlap``).
        now_ms: The server's clock.
        blobs: Key to the bytes of contributions that were read along with it, unchecked.
    """

    head: Mapping[str, str]
    contributions: Mapping[int, str]
    num_live: int
    tickets: Mapping[str, float]
    optimizer: Mapping[int, str]
    local: Mapping[int, str]
    now_ms: float
    blobs: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def number(self, field: str) -> int:
        """A field of the head as a whole number; 0 if it is missing."""
        return int(float(self.head.get(field) or 0))

    @property
    def state(self) -> str:
        """The job's state; "" if there is no head."""
        return self.head.get("state", "")

    @property
    def gen(self) -> str:
        """The job's generation."""
        return self.head.get("gen", "")

    @property
    def rid(self) -> str:
        """The round's uuid."""
        return self.head.get("rid", "")

    @property
    def is_complete(self) -> bool:
        """Whether every slot of the round has contributed."""
        return len(self.contributions) >= self.number("want") > 0

    @property
    def weights(self) -> TensorRef | None:
        """The last merged weights."""
        return self._ref("w")

    @property
    def outer_state(self) -> TensorRef | None:
        """The outer optimizer's state that goes with them."""
        return self._ref("m")

    def _ref(self, field: str) -> TensorRef | None:
        text = self.head.get(field)
        return TensorRef.from_json(text) if text else None

    @classmethod
    def from_answer(cls, answer: Sequence[Any], chunks: Mapping[str, bytes | None]) -> Self:
        """Read what LOOK answers, and what was read along with it."""
        clock, head, contributions, seen, tickets, optimizer, local = answer
        fields = {as_text(key): as_text(value) for key, value in _pairs(head)}
        now_ms = float(clock)
        oldest = now_ms - float(fields.get("lease_ms") or 0)
        return cls(
            head=fields,
            contributions=_by_slot(contributions),
            num_live=sum(1 for _, at in _pairs(seen) if float(at) >= oldest),
            tickets={as_text(ticket): float(at) for ticket, at in _pairs(tickets)},
            optimizer=_by_slot(optimizer),
            local=_by_slot(local),
            now_ms=now_ms,
            blobs={key: blob for key, blob in chunks.items() if blob is not None},
        )


def _by_slot(flat: Sequence[bytes]) -> dict[int, str]:
    return {int(slot): as_text(text) for slot, text in _pairs(flat)}


def _pairs(flat: Sequence[bytes]) -> "zip[tuple[bytes, bytes]]":
    """Names and values from a flat list of them in turn."""
    return zip(flat[::2], flat[1::2], strict=True)
