"""The user's ``self.logger``: lines go to the worker's log and, in batches, to the job's stream."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from brokers.rounds.streams import MAX_LINE_CHARS

logger = logging.getLogger(__name__)

#: How many lines are kept while the state server is away; the oldest are dropped first.
_MAX_PENDING = 5000


class FunctionLog(logging.Handler):
    """Buffers a function's log lines, each with its epoch, round and slot, until ``drain``."""

    def __init__(self, worker: str) -> None:
        super().__init__(level=logging.DEBUG)
        self._worker = worker
        self._place = (0, 0, 0)
        self._pending: list[dict[str, Any]] = []
        self._held: list[dict[str, Any]] | None = None
        self._guard = threading.Lock()

    def at(self, epoch: int, round_index: int, slot: int) -> None:
        """Set the epoch, round and slot that the next lines come from."""
        self._place = (epoch, round_index, slot)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        epoch, round_index, slot = self._place
        line = {
            "at": time.time(),
            "level": record.levelname,
            "worker": self._worker,
            "epoch": epoch,
            "round": round_index,
            "slot": slot,
            "text": self.format(record)[:MAX_LINE_CHARS],
        }
        with self._guard:
            lines = self._pending if self._held is None else self._held
            lines.append(line)
            del lines[:-_MAX_PENDING]

    def hold(self) -> None:
        """Hold back the lines logged from now on: they may be of work that will not count."""
        with self._guard:
            self._held = []

    def settle(self, *, keep: bool) -> None:
        """Release the lines that were held back, or drop them; later lines are not held."""
        with self._guard:
            if keep:
                self._pending += self._held or []
            self._held = None

    def drain(self, send: Callable[[list[dict[str, Any]]], None]) -> None:
        """Give the gathered lines to ``send``; if that fails, they stay for the next time."""
        with self._guard:
            lines, self._pending = self._pending, []
        if not lines:
            return
        try:
            send(lines)
        except BaseException:
            with self._guard:
                self._pending[:0] = lines
            raise


def function_logger(job_id: str, handler: FunctionLog) -> logging.Logger:
    """Return the logger that a job's function sees as ``self.logger``."""
    logger = logging.getLogger(f"kubeml.function.{job_id}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [handler]
    return logger
