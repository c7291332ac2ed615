"""Which rows a slot trains in a round: arithmetic on (seed, epoch, sizes, N, K, batch). Pure.

The epoch's rows are put into one order. To shuffle, shards are permuted, then rows inside windows
of consecutive shards that fit a worker's cache; a single window makes a full shuffle. Slot *i* of
*N* takes the *i*-th contiguous part of that order, so a worker that keeps its slot needs only its
share of the shards. The part is cut into rounds of ``K`` batches. Part sizes differ by at most one
row and the larger parts come first, so the slots that have rows in a round are always
``0 … want - 1``.

Random numbers are raw Philox output, because numpy guarantees that stream for ever (NEP 19), unlike
``Generator.permutation``. So two workers with different numpy versions see the same order.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from brokers.shards.manifest import DatasetManifest, Split
from kubeml.jobs.spec import JobSpec

Rows = NDArray[np.int64]

#: The most rows of one shuffle window, so that an order takes a few hundred MB at most.
WINDOW_ROWS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """The plan of one epoch. Equal inputs give equal rows, on any machine.

    Attributes:
        seed: Seed of the job.
        epoch: From 1.
        shard_rows: Number of rows of each shard, in dataset order.
        num_slots: N.
        k: Batches per round and slot; -1 for all of them.
        batch_size: Rows per batch.
        shuffle: Whether to shuffle.
        window_shards: Consecutive (permuted) shards whose rows are mixed.
    """

    seed: int
    epoch: int
    shard_rows: tuple[int, ...]
    num_slots: int
    k: int
    batch_size: int
    shuffle: bool = True
    window_shards: int = 1 << 30

    @property
    def num_rows(self) -> int:
        """Number of rows of the epoch."""
        return sum(self.shard_rows)

    @property
    def round_rows(self) -> int:
        """Number of rows of a full round of one slot."""
        largest = -(-self.num_rows // self.num_slots)
        return largest if self.k == -1 else self.k * self.batch_size

    @property
    def num_rounds(self) -> int:
        """Number of rounds of the epoch: as many as the largest part needs."""
        largest = -(-self.num_rows // self.num_slots)
        return max(1, -(-largest // self.round_rows))

    def want(self, round_index: int) -> int:
        """Return how many slots have rows in a round; these are slots ``0 … want - 1``."""
        return sum(1 for slot in range(self.num_slots) if self.num_samples(round_index, slot))

    def num_samples(self, round_index: int, slot: int) -> int:
        """Return the number of rows of (round, slot)."""
        low, high = self._bounds(round_index, slot)
        return high - low

    def num_samples_before(self, round_index: int) -> int:
        """Return the number of rows of all slots in the rounds before this one."""
        share, extra = divmod(self.num_rows, self.num_slots)
        handed_out = round_index * self.round_rows
        return extra * min(handed_out, share + 1) + (self.num_slots - extra) * min(
            handed_out, share
        )

    def rows(self, round_index: int, slot: int) -> Rows:
        """Return the row numbers of (round, slot) in training order, as a new int64 array.

        Over all rounds and slots every row of the training set appears exactly once.
        """
        low, high = self._bounds(round_index, slot)
        if not self.shuffle:
            return np.arange(low, high, dtype=np.int64)
        parts = [
            order[max(low - start, 0) : high - start]
            for start, order in self._windows(low, high)
            if start < high and start + len(order) > low
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def shards_from(self, round_index: int, slot: int) -> list[int]:
        """Return the shards that a slot needs from this round on, in the order of first need.

        All shards of a shuffle window are included, since its rows are mixed.
        """
        low, _ = self._bounds(round_index, slot)
        _, high = self._bounds(self.num_rounds - 1, slot)
        if low == high:
            return []
        order = np.arange(len(self.shard_rows))
        if self.shuffle:
            order = _shard_order(self.seed, self.epoch, len(self.shard_rows))
            windows = _window_bounds(self.seed, self.epoch, self.shard_rows, self.window_shards)
            low = max(start for start, _ in windows if start <= low)
            high = min(stop for _, stop in windows if stop >= high)
        stops = np.cumsum(np.array(self.shard_rows)[order])
        first, last = np.searchsorted(stops, [low, high - 1], side="right")
        found: list[int] = order[first : last + 1].tolist()
        return found

    def _bounds(self, round_index: int, slot: int) -> tuple[int, int]:
        share, extra = divmod(self.num_rows, self.num_slots)
        first = slot * share + min(slot, extra)
        last = first + share + (1 if slot < extra else 0)
        low = min(first + round_index * self.round_rows, last)
        return low, min(low + self.round_rows, last)

    def _windows(self, low: int, high: int) -> list[tuple[int, Rows]]:
        """Return (start, order) of the windows that overlap positions ``[low, high)``."""
        windows = _window_bounds(self.seed, self.epoch, self.shard_rows, self.window_shards)
        return [
            (
                start,
                _window_order(self.seed, self.epoch, self.shard_rows, self.window_shards, number),
            )
            for number, (start, stop) in enumerate(windows)
            if start < high and stop > low
        ]


def stream_seed(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed for one stream of random numbers, named by ``parts``.

    Before a slot's round the generators of torch, numpy and random are seeded with it. So
    augmentation and dropout draw the same wherever and however often the slot is trained.
    """
    text = ",".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def permutation(length: int, *, seed: int) -> Rows:
    """Return a permutation of ``0 … length - 1``, the same for a seed in every numpy version."""
    keys = np.random.Philox(key=seed).random_raw(length)
    return np.argsort(keys, kind="stable")


@lru_cache(maxsize=8)
def _shard_order(seed: int, epoch: int, num_shards: int) -> Rows:
    return permutation(num_shards, seed=stream_seed(seed, epoch, "shards"))


@lru_cache(maxsize=8)
def _window_bounds(
    seed: int, epoch: int, shard_rows: tuple[int, ...], window_shards: int
) -> list[tuple[int, int]]:
    """Return the positions [start, stop) of each window, bounded by shards and by rows."""
    bounds: list[tuple[int, int]] = []
    start = stop = shards = 0
    for shard in _shard_order(seed, epoch, len(shard_rows)):
        rows = shard_rows[shard]
        if shards and (shards >= window_shards or stop - start + rows > WINDOW_ROWS):
            bounds.append((start, stop))
            start, shards = stop, 0
        stop += rows
        shards += 1
    bounds.append((start, stop))
    return bounds


@lru_cache(maxsize=4)
def _window_order(
    seed: int, epoch: int, shard_rows: tuple[int, ...], window_shards: int, number: int
) -> Rows:
    """Return the shuffled row numbers of one window."""
    start, stop = _window_bounds(seed, epoch, shard_rows, window_shards)[number]
    firsts = np.concatenate(([0], np.cumsum(shard_rows)))
    rows: list[Rows] = []
    position = 0
    for shard in _shard_order(seed, epoch, len(shard_rows)):
        if start <= position < stop:
            rows.append(np.arange(firsts[shard], firsts[shard + 1], dtype=np.int64))
        position += shard_rows[shard]
    window = np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)
    return window[permutation(len(window), seed=stream_seed(seed, epoch, "rows", number))]


#: Shards of one shuffle window: about 1 GB, which fits a worker's cache many times over.
WINDOW_SHARDS = 64


def epoch_plan(spec: JobSpec, manifest: DatasetManifest, epoch: int, num_slots: int) -> EpochPlan:
    """Return the plan of a training epoch, as every process of the job computes it."""
    return EpochPlan(
        seed=spec.seed,
        epoch=epoch,
        shard_rows=manifest.train.shard_rows,
        num_slots=num_slots,
        k=spec.k,
        batch_size=spec.batch_size,
        shuffle=spec.shuffle,
        window_shards=WINDOW_SHARDS,
    )


def validation_plan(spec: JobSpec, manifest: DatasetManifest, num_slots: int) -> EpochPlan:
    """Return the plan of a validation: the whole test set once, in order, in one round.

    It has as many slots as the epoch, or one for each test row if there are fewer rows.
    """
    return EpochPlan(
        seed=spec.seed,
        epoch=0,
        shard_rows=manifest.test.shard_rows,
        num_slots=min(num_slots, manifest.test.num_rows),
        k=-1,
        batch_size=spec.batch_size,
        shuffle=False,
    )


def shards_ahead(
    spec: JobSpec,
    manifest: DatasetManifest,
    *,
    epoch: int,
    num_slots: int,
    round_index: int = 0,
    slot: int = 0,
) -> Iterator[tuple[Split, int]]:
    """Yield the shards that a slot needs from a round on, in order.

    First come this epoch's shards, then the validation's, then the next epoch's. What lies past
    this epoch is a guess: slots may go to other workers, and their number may change.
    """
    for shard in epoch_plan(spec, manifest, epoch, num_slots).shards_from(round_index, slot):
        yield "train", shard
    validation = validation_plan(spec, manifest, num_slots)
    if spec.validation_due(epoch) and slot < validation.num_slots:
        for shard in validation.shards_from(0, slot):
            yield "test", shard
    if epoch < spec.epochs:
        for shard in epoch_plan(spec, manifest, epoch + 1, num_slots).shards_from(0, slot):
            yield "train", shard
