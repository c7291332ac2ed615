"""When the rounds of a job begin, end and are merged, by a clock common to all processes.

The function ``timed`` notes when its rounds begin and end. The state server announces changes of
the job's keys (keyspace notifications), so that nothing is polled to learn when they are merged.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kubeml.client.client import Client
from scripts.benchmarks.patience import wait_until

#: (epoch, slot) to the times that its rounds began and ended, in order; seconds, monotonic.
Stamps = Mapping[tuple[int, int], tuple[Sequence[float], Sequence[float]]]


def clear(client: Client) -> None:
    """Forget what was noted."""
    for file in _folder(client).glob("*"):
        file.unlink()


def read(client: Client) -> Stamps:
    """What was noted since."""
    times: dict[tuple[int, int], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for file in _folder(client).glob("*"):
        for line in file.read_text("utf-8").splitlines():
            stamp: dict[str, Any] = json.loads(line)
            times[stamp["epoch"], stamp["slot"]][stamp["what"] == "end"].append(stamp["at"])
    return {key: (sorted(begun), sorted(ended)) for key, (begun, ended) in times.items()}


def first_batch(client: Client) -> float:
    """When the first batch of all began; waits for it."""
    wait_until(lambda: any(begun for begun, _ in read(client).values()), every_s=0.02)
    return min(at for begun, _ in read(client).values() for at in begun)


class Merge(NamedTuple):
    """Of one round: when the last contribution was in, and when it was merged (monotonic)."""

    pushed_at: float
    merged_at: float


@contextmanager
def watched_merges(client: Client, job_id: str) -> Iterator[list[Merge]]:
    """The merges of one job, which is submitted within; every stage of it shows as a round."""
    merges: list[Merge] = []
    pushed_at: list[float] = []

    def note(message: dict[str, Any]) -> None:
        now = time.monotonic()
        if message["data"] == b"hset":
            pushed_at[:] = [now]
        elif message["data"] == b"del" and pushed_at:
            merges.append(Merge(pushed_at.pop(), now))

    # Hashes, and commands on any key.
    client.backends.redis.config_set("notify-keyspace-events", "Khg")
    subscription = client.backends.redis.pubsub()
    subscription.psubscribe(**{f"__keyspace@*__:kml:{{{job_id}}}:c": note})
    thread = subscription.run_in_thread(sleep_time=0.2, daemon=True)
    try:
        yield merges
    finally:
        thread.stop()
        thread.join()


def _folder(client: Client) -> Path:
    return client.settings.home / "stamps"
