"""What a job tells the world while it runs: progress events and the function's log lines.

Both are short Redis streams for followers. Whatever must last is written to S3 when the job ends.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from brokers.rounds.events import Event, LogLine
from brokers.state.batch import Batch
from brokers.state.connections import MAX_BLOCK_MS, stream_entries
from brokers.state.error_mapping import redis_errors
from brokers.state.scripts import run_together
from brokers.wire import as_text

if TYPE_CHECKING:
    from redis import Redis

MAX_EVENTS = 20_000
MAX_LOG_LINES = 20_000
MAX_LINE_CHARS = 8_000

#: A late worker may make a stream anew after its job was forgotten: it expires after this long.
STREAM_TTL_S = 30 * 86400


class JobStreams:
    """The event and log streams of one job."""

    def __init__(self, client: "Redis", job_id: str, *, where: str = "the state server") -> None:
        self._client = client
        self._events = f"kml:{{{job_id}}}:ev"
        self._log = f"kml:{{{job_id}}}:log"
        self._where = where

    def emit(self, kind: str, **fields: Any) -> None:
        """Add a progress event."""
        with redis_errors(self._where):
            run_together(self._client, first=self.event(kind, **fields))

    def event(self, kind: str, **fields: Any) -> Batch:
        """Return the commands of ``emit``, to be carried out along with others."""
        facts = ("kind", kind, "fields", json.dumps(fields))
        return (
            Batch()
            .add("XADD", self._events, "MAXLEN", "~", MAX_EVENTS, "*", *facts)
            .add("EXPIRE", self._events, STREAM_TTL_S, "NX")
        )

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Add log lines (``LogLine.to_wire`` form) in one round trip."""
        with redis_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            for line in lines:
                pipe.xadd(
                    self._log, {"line": json.dumps(line)}, maxlen=MAX_LOG_LINES, approximate=True
                )
            pipe.expire(self._log, STREAM_TTL_S, nx=True)
            pipe.execute()

    def clear(self) -> None:
        """Empty both streams for a resumed job: its last life's end would end every follower."""
        with redis_errors(self._where):
            self._client.delete(self._events, self._log)

    def events(self, *, since: str = "0", block_ms: int = 0) -> list[Event]:
        """Return events after ``since``, oldest first; wait up to ``block_ms`` for the first."""
        return [
            Event.from_entry(entry_id, fields)
            for entry_id, fields in self._read(self._events, since, block_ms)
        ]

    def lines(self, *, since: str = "0", block_ms: int = 0) -> list[tuple[str, LogLine]]:
        """Return pairs (stream id, log line) after ``since``, oldest first."""
        return [
            (entry_id, LogLine(**json.loads(as_text(fields[b"line"]))))
            for entry_id, fields in self._read(self._log, since, block_ms)
        ]

    def _read(
        self, key: str, since: str, block_ms: int
    ) -> Iterator[tuple[str, Mapping[bytes, bytes]]]:
        block = min(block_ms, MAX_BLOCK_MS) or None
        with redis_errors(self._where):
            answer: Any = self._client.xread({key: since}, count=1000, block=block)
        for entry_id, fields in stream_entries(answer):
            yield as_text(entry_id), fields
