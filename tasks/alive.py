"""Celery's event loop notes that it goes round, for probes."""

from typing import Any

from celery.bootsteps import StartStopStep

from brokers.progress import progress

_EVERY_S = 2.0


class GoesRound(StartStopStep):
    """A timer of the consumer's event loop, set anew with every connection to the broker."""

    def start(self, consumer: Any) -> None:
        """Begin noting. The loop drops its timers when it loses the broker."""
        consumer.timer.call_repeatedly(_EVERY_S, progress.note)
