"""Sends a dataset's arrays to S3 as shards; ``Datasets.create`` runs it.

Shards are read one after the other; several are packed, hashed and put at the same time.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brokers.objects.store import ObjectStore
from brokers.shards.format import pack_shard
from brokers.shards.manifest import SPLITS, ShardInfo, Split, SplitInfo, shard_key
from kubeml.catalog.arrays import ArraySource

Array = NDArray[Any]
OnProgress = Callable[[int, int], None]

#: Shards are at most this large, and at least half as large if there is enough data.
SHARD_BYTES = 16 * 2**20
_PARALLEL_PUTS = 4
#: Blocks of rows in memory beside those being put: the next one is read meanwhile.
_READ_AHEAD = 1


class DataWarning(UserWarning):
    """A dataset can be used, but is probably not what was meant."""


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """The two arrays of one part of a dataset, with the same number of rows."""

    data: ArraySource
    labels: ArraySource

    @property
    def num_bytes(self) -> int:
        """Bytes of both arrays."""
        return self.data.num_bytes + self.labels.num_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A shard that is on S3, and how many rows of its data and labels hold NaN or infinities."""

    split: Split
    index: int
    info: ShardInfo
    array_bytes: int
    bad_data: int
    bad_labels: int


@dataclass(kw_only=True)
class Upload:
    """One upload of one version; ``run`` it once.

    Attributes:
        name, version: The dataset and version that the shards belong to.
        objects: The store they go to.
        sources: The checked arrays of both parts.
        on_progress: Called in the caller's thread with the bytes done and the bytes in all.
    """

    name: str
    version: str
    objects: ObjectStore
    sources: Mapping[Split, SplitSource]
    on_progress: OnProgress | None = None
    _sent: list[_Sent] = field(default_factory=list)

    def run(self) -> dict[Split, SplitInfo]:
        """Put every shard, and return what the manifest is to say of both parts.

        It takes the memory of about 6 shards of 16 MiB and as many copies on their way, however
        large the dataset is.

        Raises:
            InvalidDataset: A file changed or turned out damaged while it was read.
            BackendUnreachable, BackendRefused: From S3; some shards may have been put.
        """
        pending: set[Future[_Sent]] = set()
        pool = ThreadPoolExecutor(_PARALLEL_PUTS, thread_name_prefix="upload")
        self._report()
        try:
            for split in SPLITS:
                for index, rows in enumerate(_blocks(self.sources[split])):
                    if len(pending) >= _PARALLEL_PUTS + _READ_AHEAD:
                        pending = self._collect(pending)
                    pending.add(pool.submit(self._put, split, index, rows))
                    # The block is its put's now: freed with it, not when the next block is read.
                    del rows
            while pending:
                pending = self._collect(pending)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        self._warn()
        return {split: self._split_info(split) for split in SPLITS}

    def _put(self, split: Split, index: int, rows: list[Array]) -> _Sent:
        data, labels = rows
        rows.clear()
        num_rows, array_bytes = len(data), data.nbytes + labels.nbytes
        bad_data, bad_labels = _num_bad_rows(data), _num_bad_rows(labels)
        content = pack_shard(data, labels)
        del data, labels
        key = shard_key(self.name, self.version, split, index)
        self.objects.put(key, content)
        info = ShardInfo(
            key=key,
            num_rows=num_rows,
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        return _Sent(
            split=split,
            index=index,
            info=info,
            array_bytes=array_bytes,
            bad_data=bad_data,
            bad_labels=bad_labels,
        )

    def _collect(self, pending: set[Future[_Sent]]) -> set[Future[_Sent]]:
        """Wait for at least one shard, and return those still under way."""
        done, left = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            self._sent.append(future.result())
            self._report()
        return left

    def _report(self) -> None:
        if self.on_progress is not None:
            total = sum(source.num_bytes for source in self.sources.values())
            self.on_progress(sum(sent.array_bytes for sent in self._sent), total)

    def _warn(self) -> None:
        for split in SPLITS:
            sent = [sent for sent in self._sent if sent.split == split]
            source = self.sources[split]
            for array, count in (
                (source.data, sum(s.bad_data for s in sent)),
                (source.labels, sum(s.bad_labels for s in sent)),
            ):
                if count:
                    message = (
                        f"{array.where}: {count} of {array.num_rows} rows hold NaN or infinite"
                        " values; a loss that becomes NaN stops the job"
                    )
                    warnings.warn(message, DataWarning, stacklevel=5)

    def _split_info(self, split: Split) -> SplitInfo:
        source = self.sources[split]
        sent = sorted((s for s in self._sent if s.split == split), key=lambda s: s.index)
        return SplitInfo(
            num_rows=source.data.num_rows,
            data_dtype=source.data.dtype,
            data_shape=source.data.row_shape,
            labels_dtype=source.labels.dtype,
            labels_shape=source.labels.row_shape,
            shards=tuple(s.info for s in sent),
        )


def shard_counts(num_rows: int, row_bytes: int) -> list[int]:
    """Return the rows of each shard: as equal as possible, each of ``SHARD_BYTES`` at most.

    A shard has at least one row, however large that is.
    """
    most = max(1, SHARD_BYTES // row_bytes)
    num_shards = -(-num_rows // most)
    size, larger = divmod(num_rows, num_shards)
    return [size + 1] * larger + [size] * (num_shards - larger)


def _blocks(source: SplitSource) -> Iterator[list[Array]]:
    """Yield ``[data, labels]`` of each shard."""
    num_rows = source.data.num_rows
    counts: Sequence[int] = shard_counts(num_rows, -(-source.num_bytes // num_rows))
    with (
        closing(source.data.blocks(counts)) as data,
        closing(source.labels.blocks(counts)) as labels,
    ):
        # A plain loop: zip() would hold on to the blocks of 16 MiB that it yielded.
        for _ in counts:
            yield [next(data), next(labels)]


def _num_bad_rows(rows: Array) -> int:
    if rows.dtype.kind != "f" or np.isfinite(rows).all():
        return 0
    return int((~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)).sum())
