"""A job's live state at one moment, as ``lua/look.lua`` reads it for the parameter server."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from brokers.rounds.head import Head
from brokers.tensors.reference import TensorRef
from brokers.wire import as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A job's head and contributions at one moment.

    Attributes:
        head: The head; false if there is none.
        contributions: Slot to the contribution's JSON text.
        num_live: Participants seen within a lease.
        tickets: Unanswered dispatches, with the server time (ms) each was sent.
        optimizer: Slot to the reference of its optimizer state.
        local: Slot to the reference of its local weights (``--overlap``).
        now_ms: The server's clock.
        blobs: Key to the bytes of contributions that were read in the same trip, unchecked.
    """

    head: Head
    contributions: Mapping[int, str]
    num_live: int
    tickets: Mapping[str, float]
    optimizer: Mapping[int, str]
    local: Mapping[int, str]
    now_ms: float
    blobs: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> str:
        """The job's state; "" if there is no head."""
        return self.head.state

    @property
    def gen(self) -> str:
        """The job's generation."""
        return self.head.gen

    @property
    def rid(self) -> str:
        """The round's uuid."""
        return self.head.rid

    @property
    def is_complete(self) -> bool:
        """Whether every slot of the round has contributed."""
        return len(self.contributions) >= self.head.want > 0

    @property
    def weights(self) -> TensorRef | None:
        """The reference to the last merged weights."""
        return _reference(self.head.weights)

    @property
    def outer_state(self) -> TensorRef | None:
        """The reference to the outer optimizer's state that goes with them."""
        return _reference(self.head.outer_state)

    @classmethod
    def from_answer(cls, answer: Sequence[Any], chunks: Mapping[str, bytes | None]) -> Self:
        """Read the answer of LOOK, and the chunks that were read in the same trip."""
        clock, fields, contributions, seen, tickets, optimizer, local = answer
        head = Head.from_fields(dict(_pairs(fields)))
        now_ms = float(clock)
        oldest = now_ms - head.lease_ms
        return cls(
            head=head,
            contributions=_by_slot(contributions),
            num_live=sum(1 for _, at in _pairs(seen) if float(at) >= oldest),
            tickets={as_text(ticket): float(at) for ticket, at in _pairs(tickets)},
            optimizer=_by_slot(optimizer),
            local=_by_slot(local),
            now_ms=now_ms,
            blobs={key: blob for key, blob in chunks.items() if blob is not None},
        )


def _reference(text: str) -> TensorRef | None:
    return TensorRef.from_json(text) if text else None


def _by_slot(flat: Sequence[bytes]) -> dict[int, str]:
    return {int(slot): as_text(text) for slot, text in _pairs(flat)}


def _pairs(flat: Sequence[bytes]) -> "zip[tuple[bytes, bytes]]":
    """Return pairs of names and values from a list in which they alternate."""
    return zip(flat[::2], flat[1::2], strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """What was handed in since the last knock.

    Attributes:
        id: The id to wait after next time.
        left: How many slots were left to hand in then, at least. It is also 0 if a process only
            wants the parameter server to look; -1: there is no news.
        chunks: Keys of the (first) chunks that were handed in.
    """

    id: str
    left: int = -1
    chunks: tuple[str, ...] = ()

    @classmethod
    def from_answer(cls, answer: Any, after: str) -> Self:
        """Read the answer of XREAD."""
        if not answer:
            return cls(id=after)
        # RESP2 has a list for each stream; RESP3 has a map of them.
        _, entries = answer[0] if isinstance(answer[0], list) else answer
        found = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]
        return cls(
            id=as_text(entries[-1][0]),
            left=min(int(fields.get(b"left", 0)) for fields in found),
            chunks=tuple(as_text(key) for fields in found if (key := fields.get(b"chunk"))),
        )


class Ledger(NamedTuple):
    """What an epoch has merged so far. The values are JSON texts.

    Attributes:
        merged: Round to its contributions, without their tensors.
        failed: The attempts that came to nothing, in order.
        timings: Round to ``[opened, merged, [[begun, taken, in], ...]]``; see ``advance.lua``. A
            round that was merged by scripts which did not note them has none.
    """

    merged: dict[int, str]
    failed: list[str]
    timings: dict[int, str]

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> Self:
        """Sort the fields of the hash: ``N``, ``tN`` and ``fN``, each N a whole number."""
        of_kind: dict[str, dict[int, str]] = {"": {}, "f": {}, "t": {}}
        for key, text in raw.items():
            name = as_text(key)
            number = name.lstrip("ft")
            of_kind[name.removesuffix(number)][int(number)] = as_text(text)
        failed = [text for _, text in sorted(of_kind["f"].items())]
        return cls(merged=of_kind[""], failed=failed, timings=of_kind["t"])

    def failed_attempts(self) -> list[dict[str, Any]]:
        """Return the notes of each failed attempt; an unreadable one is left out.

        Notes are for people: they must not keep an epoch from being recorded.
        """
        return [attempt for text in self.failed if (attempt := _attempt(text))]


def _attempt(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
