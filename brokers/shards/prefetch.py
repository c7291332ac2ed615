"""Fetches the shards that a worker will need soon, while it trains on those that it has."""

import logging
import threading
from collections import deque
from collections.abc import Iterable
from itertools import count

from brokers.shards.manifest import Split
from brokers.shards.reader import ShardReader

logger = logging.getLogger(__name__)

#: Downloads at once: one connection rarely fills a link, and each holds a shard of 16 MiB.
_THREADS = 3

#: A worker looks ahead by one part in this many of the cache: other workers of its machine use it
#: too, and a shard that is fetched too early may be dropped before it is needed.
_CACHE_PART = 4

Shard = tuple[Split, int]


class ShardPrefetcher:
    """Brings shards into the cache by threads of its own, which end when there is nothing to do.

    Errors are ignored here: the reader fetches a missing shard itself when its rows are needed,
    and raises the error then.

    Args:
        reader: The reader of the shards. The caller may read from it meanwhile.
        budget: How many bytes of files to look ahead; a quarter of the cache unless given.
    """

    def __init__(self, reader: ShardReader, *, budget: int | None = None) -> None:
        self._reader = reader
        self._budget = reader.max_cache_bytes // _CACHE_PART if budget is None else budget
        self._lock = threading.Lock()
        #: The shards of the last call; the rounds of one shuffle window ask for the same ones.
        self._plan: tuple[Shard, ...] = ()
        self._wanted: deque[Shard] = deque()
        self._threads: set[threading.Thread] = set()
        self._numbers = count(1)

    def ahead(self, shards: Iterable[Shard]) -> None:
        """Fetch these shards in this order, and no longer those of the call before.

        Shards that are in the cache already count towards the budget, too. It returns at once.
        """
        plan = tuple(dict.fromkeys(shards))
        with self._lock:
            if plan == self._plan:
                return
            self._plan = plan
        wanted: deque[Shard] = deque()
        left = self._budget
        for split, index in plan:
            left -= self._reader.shard(split, index).num_bytes
            if left < 0:
                break
            if not self._reader.has(split, index):
                wanted.append((split, index))
        with self._lock:
            self._wanted = wanted
            for _ in range(min(len(wanted), _THREADS) - len(self._threads)):
                # Daemon threads: a worker that is told to go does not wait for a download.
                thread = threading.Thread(
                    target=self._run, name=f"kubeml-shards-{next(self._numbers)}", daemon=True
                )
                self._threads.add(thread)
                thread.start()

    def close(self) -> None:
        """Begin no more downloads; those under way end by themselves."""
        with self._lock:
            self._wanted.clear()

    def _run(self) -> None:
        while (shard := self._next()) is not None:
            try:
                self._reader.fetch(*shard)
            except Exception as err:  # noqa: BLE001 - raised where the shard is really needed
                logger.debug("shard %s is not prefetched: %s", shard, err)
                with self._lock:
                    # Drop the others, too, until the next call: the reader meets the error itself.
                    self._wanted.clear()
                    self._plan = ()

    def _next(self) -> Shard | None:
        with self._lock:
            if self._wanted:
                return self._wanted.popleft()
            # In the lock: a caller that adds more sees that this thread is gone, and starts one.
            self._threads.discard(threading.current_thread())
            return None
