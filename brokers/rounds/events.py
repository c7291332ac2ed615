"""The entries of a job's streams: events of the job, and lines that its function logged. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from brokers.wire import as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to a job.

    Attributes:
        id: Its id in the stream, which is the ``since`` of a later read.
        kind: init, epoch, round, validated, checkpoint, retry, end.
        at: Unix seconds by the server's clock.
        fields: The facts of the event; they depend on its kind.
    """

    id: str
    kind: str
    at: float
    fields: Mapping[str, Any]

    @classmethod
    def from_entry(cls, entry_id: str, fields: Mapping[bytes, bytes]) -> Self:
        """Read an entry of the stream."""
        return cls(
            id=entry_id,
            kind=as_text(fields[b"kind"]),
            at=int(entry_id.partition("-")[0]) / 1000,
            fields=json.loads(as_text(fields[b"fields"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line that a user's function logged, with where it came from."""

    at: float
    level: str
    worker: str
    epoch: int
    round: int
    slot: int
    text: str

    def to_wire(self) -> dict[str, Any]:
        """Return the line as JSON-able values."""
        return {name: getattr(self, name) for name in self.__slots__}
