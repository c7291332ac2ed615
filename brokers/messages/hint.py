"""The body of every message."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from brokers.errors import MalformedMessage
from brokers.wire import from_wire, is_job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """The body of every message, which says: look at this job. It may be lost, doubled or late.

    Attributes:
        job_id: The job.
        ticket: The dispatch that this message stands for; "" for a hint to the parameter server.
    """

    job_id: str
    ticket: str = ""

    def __post_init__(self) -> None:
        if not is_job_id(self.job_id) or len(self.ticket) > 64:
            raise MalformedMessage(what="hint", fault=repr(self.job_id)[:80])

    def to_wire(self) -> dict[str, Any]:
        """Return the hint as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a hint.

        Raises:
            MalformedMessage: It is not a hint; a field may be missing or unknown.
        """
        if not isinstance(wire, Mapping):
            raise MalformedMessage(what="hint", fault=f"{type(wire).__name__}, not an object")
        return from_wire(cls, wire, what="hint")
