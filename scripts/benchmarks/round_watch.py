"""When the rounds of a job were pushed and merged, as the state server tells it.

The server announces changes of the job's keys (keyspace notifications), so nothing is polled.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kubeml.client.client import Client

#: Hashes, and commands on any key.
_EVENTS = "Khg"


@dataclass(frozen=True, kw_only=True)
class RoundTimes:
    """Of one round: when the last contribution was in, and when it was merged (monotonic)."""

    pushed_at: float
    merged_at: float


class RoundWatch(threading.Thread):
    """Follows one job from before its submission; ``stop`` it and read ``rounds``.

    Every stage shows as a round: initialisation, rounds of training, validation.
    """

    def __init__(self, client: Client, job_id: str) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()
        client.redis.config_set("notify-keyspace-events", _EVENTS)
        self._subscription = client.redis.pubsub(ignore_subscribe_messages=True)
        self._subscription.psubscribe(f"__keyspace@*__:kml:{{{job_id}}}:c")
        self._pushed_at: float | None = None
        self.rounds: list[RoundTimes] = []

    def run(self) -> None:
        """Note what is announced."""
        while not self._stopped.is_set():
            message = self._subscription.get_message(timeout=0.2)
            if message is None:
                continue
            if message["data"] == b"hset":
                self._pushed_at = time.monotonic()
            elif message["data"] == b"del" and self._pushed_at is not None:
                merged = RoundTimes(pushed_at=self._pushed_at, merged_at=time.monotonic())
                self.rounds.append(merged)
                self._pushed_at = None

    def stop(self) -> Sequence[RoundTimes]:
        """End the thread; what it saw."""
        self._stopped.set()
        self.join()
        self._subscription.close()
        return self.rounds
