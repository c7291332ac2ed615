"""Gathers rows of a dataset by index, from shards in the worker's cache, for the runtime."""

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brokers.errors import InvalidSetting
from brokers.objects.store import ObjectStore
from brokers.shards.cache import ShardCache
from brokers.shards.format import Array, map_shard
from brokers.shards.manifest import DatasetManifest, ShardInfo, Split, SplitInfo

__all__ = ["DatasetManifest", "ShardInfo", "ShardReader", "SplitInfo"]

#: The most shards mapped at a time: each takes one of a process's 1024 file descriptors.
_MAX_MAPS = 256
#: How often the cache is told that a mapped shard is in use, so that it drops others first.
_TOUCH_S = 10.0
#: How often to try to map a shard that other processes push out of a full cache.
_MAX_TRIES = 10


@dataclass(slots=True)
class _Map:
    tensors: dict[str, Array]
    shard: ShardInfo
    touched_at: float


class ShardReader:
    """Reads rows of one dataset. Safe to share between threads; make a new one after a fork.

    Shards are downloaded to the cache when first needed, verified by their hash, and mapped into
    memory: all processes of a machine share one copy, and only rows are copied.

    Args:
        manifest: The manifest of the dataset's version.
        objects: The store that has the shards.
        cache: The cache that keeps them on this machine.
    """

    def __init__(
        self, manifest: DatasetManifest, *, objects: ObjectStore, cache: ShardCache
    ) -> None:
        self.manifest = manifest
        self._objects = objects
        self._cache = cache
        self._lock = threading.Lock()
        self._maps: OrderedDict[str, _Map] = OrderedDict()
        self._mapped_bytes = 0
        self._firsts = {
            split: np.array(manifest.split(split).first_rows, dtype=np.int64)
            for split in ("train", "test")
        }

    def gather(self, split: Split, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the data and labels of these rows, in their order.

        Args:
            split: ``train`` or ``test``.
            rows: Indices into the split, in any order, repeated or not.

        Returns:
            New, writable arrays: data (len(rows), *data_shape), labels (len(rows), *labels_shape).

        Raises:
            IndexError: A row is outside the split.
            ObjectMissing: A shard is gone, since its dataset was deleted.
            Corrupted: A shard does not have the bytes it was uploaded with.
        """
        info = self.manifest.split(split)
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < info.num_rows:
            raise IndexError(f"{split} rows {rows.min()} to {rows.max()} of {info.num_rows}")
        data = np.empty((len(rows), *info.data_shape), dtype=info.data_dtype)
        labels = np.empty((len(rows), *info.labels_shape), dtype=info.labels_dtype)
        firsts = self._firsts[split]
        shards = np.searchsorted(firsts, rows, side="right") - 1
        order = np.argsort(shards, kind="stable")
        ends = np.searchsorted(shards[order], np.arange(len(firsts)), side="right")
        start = 0
        for shard, end in enumerate(ends.tolist()):
            if start == end:
                continue
            tensors = self._tensors(info, info.shards[shard])
            places = order[start:end]
            local = rows[places] - firsts[shard]
            if end - start == len(rows):  # all rows are in one shard: places are 0, 1, 2 ...
                np.take(tensors["data"], local, axis=0, out=data, mode="clip")
                np.take(tensors["labels"], local, axis=0, out=labels, mode="clip")
            else:
                data[places] = tensors["data"][local]
                labels[places] = tensors["labels"][local]
            start = end
        return data, labels

    @property
    def max_cache_bytes(self) -> int:
        """The bound of the cache that keeps the shards."""
        return self._cache.max_bytes

    def shard(self, split: Split, index: int) -> ShardInfo:
        """Return what the manifest says of a shard."""
        return self.manifest.split(split).shards[index]

    def has(self, split: Split, index: int) -> bool:
        """Return whether a shard is in the cache, sound or not."""
        return self._cache.has(self.shard(split, index).sha256)

    def fetch(self, split: Split, index: int) -> None:
        """Bring a shard into the cache unless it is there.

        Raises:
            ObjectMissing: It is gone, since its dataset was deleted.
            Corrupted: It does not have the bytes it was uploaded with.
        """
        shard = self.shard(split, index)
        self._cache.get(shard.sha256, partial(self._objects.get, shard.key))

    def _tensors(self, info: SplitInfo, shard: ShardInfo) -> dict[str, Array]:
        with self._lock:
            if (entry := self._maps.get(shard.key)) is not None:
                self._maps.move_to_end(shard.key)
                self._touch(entry)
                return entry.tensors
        # Without the lock: a download must not hold up a thread whose shards are here.
        tensors = self._open(info, shard)
        with self._lock:
            if shard.key not in self._maps:
                self._maps[shard.key] = _Map(tensors, shard, time.monotonic())
                self._mapped_bytes += shard.num_bytes
            self._release()
        return tensors

    def _open(self, info: SplitInfo, shard: ShardInfo) -> dict[str, Array]:
        like = {
            "data": np.empty((0, *info.data_shape), dtype=info.data_dtype),
            "labels": np.empty((0, *info.labels_shape), dtype=info.labels_dtype),
        }
        fetch = partial(self._objects.get, shard.key)
        for _ in range(_MAX_TRIES):
            path = self._cache.get(shard.sha256, fetch)
            with suppress(FileNotFoundError):
                return map_shard(path, num_rows=shard.num_rows, rows_like=like)
        raise InvalidSetting(
            setting="cache_bytes",
            fault=f"{self._cache.max_bytes} bytes are too few for the workers of this machine",
            hint=f"raise it: {shard.key} is pushed out before it can be read",
        )

    def _touch(self, entry: _Map) -> None:
        now = time.monotonic()
        if now - entry.touched_at > _TOUCH_S:
            entry.touched_at = now
            self._cache.touch(entry.shard.sha256)

    def _release(self) -> None:
        """Unmap the least recently used shards: a mapped one takes disk space even when dropped."""
        while len(self._maps) > 1 and (
            len(self._maps) > _MAX_MAPS or self._mapped_bytes > self._cache.max_bytes
        ):
            _, entry = self._maps.popitem(last=False)
            self._mapped_bytes -= entry.shard.num_bytes
