"""A live job, and the pool, as their keys on the servers have them at one moment. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brokers.pool.node import Node
from brokers.pool.request import Request
from brokers.rounds.events import Event
from brokers.rounds.head import Head

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReading:
    """A live job, as its keys on the state server describe it.

    Attributes:
        id: Job id.
        head: The head; false if there is none.
        leases: Slot to its record, as in ``lua/_prelude.lua``.
        contributions: Slot to its contribution for the round under way.
        participants: Token to when it was last seen, in ms of the server's clock.
        tickets: When each unanswered dispatch was sent, in ms of the server's clock.
        events: The last events, oldest first.
        merged: What the round before merged, as in the ledger; empty if that was in another epoch.
        timing: That round's entry in the ledger's timings; None if there is none.
    """

    id: str
    head: Head
    leases: Mapping[int, Record] = field(default_factory=dict)
    contributions: Mapping[int, Record] = field(default_factory=dict)
    participants: Mapping[str, float] = field(default_factory=dict)
    tickets: Sequence[float] = ()
    events: Sequence[Event] = ()
    merged: Sequence[Record] = ()
    timing: Any = None

    @property
    def state(self) -> str:
        """The job's state; "" if there is no head."""
        return self.head.state

    @property
    def device(self) -> str:
        """The device of the workers it wants: ``cpu`` or ``gpu``; "" if there is no head."""
        return self.head.device if self.head else ""

    @property
    def num_samples(self) -> int:
        """How many rows were handed in for the round under way."""
        return sum(count(entry.get("num_samples")) for entry in self.contributions.values())

    def live_tokens(self, now_ms: float) -> list[str]:
        """Return the tokens of the participants that were seen within a lease."""
        oldest = now_ms - self.head.lease_ms
        return [token for token, seen in self.participants.items() if seen >= oldest]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReading:
    """The pool at one moment.

    Attributes:
        now_ms: The time by the state server's clock.
        nodes: Processes that announced themselves lately.
        jobs: Live jobs, by id.
        queues: Queue to the number of messages that wait in it.
        requests: The inference requests that a client waits for.
    """

    now_ms: float
    nodes: Sequence[Node]
    jobs: Sequence[JobReading]
    queues: Mapping[str, int]
    requests: Sequence[Request] = ()


def count(value: object) -> int:
    """Return a number of rows that a worker wrote; 0 if it is not a number."""
    return value if isinstance(value, int) and value > 0 else 0
