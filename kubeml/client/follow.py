"""Following a job to its end: progress events and the function's log lines, as they come.

The streams say what happens; whether the job is over is for the records to say.
"""

import time
from collections.abc import Iterator

from brokers.rounds.events import Event, LogLine
from brokers.rounds.streams import JobStreams
from kubeml.backends import Backends
from kubeml.errors import JobNotFound

#: How long one wait for events lasts before the durable records are looked at.
_BLOCK_MS = 1000


class Follower:
    """Reads the streams of one job."""

    def __init__(self, job_id: str, backends: Backends) -> None:
        self._id = job_id
        self._streams = JobStreams(backends.redis, job_id, where=backends.where)
        self._records = backends.records

    def batches(self, *, since: str = "0", deadline: float | None = None) -> Iterator[list[Event]]:
        """Batches of events until the end; an empty one about every second.

        Args:
            since: Id of the last event seen before; "0" for all that are still kept.
            deadline: By the monotonic clock; None for none.
        """
        while True:
            batch = self._streams.events(since=since, block_ms=_BLOCK_MS)
            if batch:
                since = batch[-1].id
            yield batch
            # By the records: the end in the stream may be that of an earlier life.
            ended = not batch or any(event.kind == "end" for event in batch)
            if ended and self._is_over():
                return
            if deadline is not None and time.monotonic() > deadline:
                return

    def recent(self, *, since: str) -> list[Event]:
        """Events after ``since`` that are kept still, without waiting for more."""
        return self._streams.events(since=since)

    def logs(self, *, follow: bool) -> Iterator[LogLine]:
        """The function's log lines; with ``follow`` until the job has ended."""
        since = "0"
        while True:
            end = self._records.end(self._id)
            if since == "0":
                yield from (LogLine(**line) for line in self._records.log_lines(self._id))
                if end is not None:
                    return
            lines = self._streams.lines(since=since, block_ms=_BLOCK_MS if follow else 0)
            yield from (line for _, line in lines)
            since = lines[-1][0] if lines else since
            if not lines and (end is not None or not follow):
                return

    def _is_over(self) -> bool:
        """Whether the job has ended, or was deleted meanwhile."""
        if self._records.end(self._id) is not None:
            return True
        try:
            self._records.spec(self._id)
        except JobNotFound:
            return True
        return False
