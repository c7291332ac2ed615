"""Shards that are fetched ahead, from a real S3 server."""

import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from brokers.errors import BackendUnreachable
from brokers.objects.store import ObjectStore
from brokers.shards.cache import ShardCache
from brokers.shards.manifest import DatasetManifest
from brokers.shards.prefetch import Shard, ShardPrefetcher
from brokers.shards.reader import ShardReader
from kubeml.catalog import upload
from kubeml.catalog.datasets import Datasets
from tests.eventually import eventually


@pytest.fixture
def manifest(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> DatasetManifest:
    """A dataset of 20 shards of 10 rows, and one of tests."""
    monkeypatch.setattr(upload, "SHARD_BYTES", 160)
    rows = np.arange(200, dtype=np.int64)
    return Datasets(objects).create(
        f"set-{uuid4().hex[:12]}", train_data=rows, train_labels=rows, test_data=rows[:10],
        test_labels=rows[:10],
    )  # fmt: skip


class Gets:
    """The shards that were read from S3, in order; the read after ``held_after`` waits."""

    def __init__(self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[str] = []
        self.held_after = 10**9
        self.fails = False
        self.released = threading.Event()
        get = objects.get

        def noted(key: str) -> bytes:
            self.keys.append(key)
            if len(self.keys) > self.held_after:
                assert self.released.wait(20)
            if self.fails:
                raise BackendUnreachable(backend="s3", where="nowhere")
            return get(key)

        monkeypatch.setattr(objects, "get", noted)


@pytest.fixture
def gets(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Gets:
    return Gets(objects, monkeypatch)


@pytest.fixture
def reader(manifest: DatasetManifest, objects: ObjectStore, tmp_path: Path) -> ShardReader:
    return ShardReader(manifest, objects=objects, cache=ShardCache(tmp_path, 10**8))


def train(*indices: int) -> list[Shard]:
    return [("train", index) for index in indices]


def are_here(reader: ShardReader, shards: list[Shard]) -> Any:
    return lambda: all(reader.has(*shard) for shard in shards)


def num_threads() -> int:
    return sum(t.name.startswith("kubeml-shards") for t in threading.enumerate())


def wait_for_end() -> None:
    eventually(lambda: num_threads() == 0, within_s=10, what="end of the threads")


def test_shards_come_ahead_and_are_not_read_again(reader: ShardReader, gets: Gets) -> None:
    shards = [*train(3, 1, 2), ("test", 0)]

    ShardPrefetcher(reader).ahead([*shards, *train(1)])
    eventually(are_here(reader, shards), within_s=10, what="shards in the cache")
    data, _ = reader.gather("train", np.arange(10, 40))

    assert data.tolist() == list(range(10, 40))
    assert len(gets.keys) == 4
    wait_for_end()


def test_caller_does_not_wait_and_training_goes_on_meanwhile(
    reader: ShardReader, gets: Gets
) -> None:
    gets.held_after = 0
    prefetcher = ShardPrefetcher(reader)
    prefetcher.ahead(train(*range(1, 20)))
    eventually(lambda: len(gets.keys) == 3, within_s=10, what="downloads under way")

    gets.held_after = 10**9
    data, _ = reader.gather("train", np.arange(10))

    assert data.tolist() == list(range(10))
    assert not reader.has("train", 1)
    prefetcher.close()
    gets.released.set()
    wait_for_end()
    assert len(gets.keys) == 4


def test_later_call_replaces_what_is_not_begun(reader: ShardReader, gets: Gets) -> None:
    gets.held_after = 0
    prefetcher = ShardPrefetcher(reader)
    prefetcher.ahead(train(*range(10)))
    eventually(lambda: len(gets.keys) == 3, within_s=10, what="downloads under way")

    prefetcher.ahead(train(15, 16))
    gets.released.set()
    wait_for_end()

    assert [i for i in range(20) if reader.has("train", i)] == [0, 1, 2, 15, 16]


def test_no_more_is_fetched_than_the_budget_allows(reader: ShardReader) -> None:
    size = reader.shard("train", 0).num_bytes
    prefetcher = ShardPrefetcher(reader, budget=3 * size)

    prefetcher.ahead(train(5, 6, 7, 8, 9))
    wait_for_end()

    assert [i for i in range(20) if reader.has("train", i)] == [5, 6, 7]


def test_failure_is_raised_only_where_the_shard_is_needed(reader: ShardReader, gets: Gets) -> None:
    prefetcher = ShardPrefetcher(reader)
    gets.fails = True
    prefetcher.ahead(train(0, 1, 2))
    wait_for_end()

    with pytest.raises(BackendUnreachable):
        reader.gather("train", np.arange(10))
    gets.fails = False
    prefetcher.ahead(train(0, 1, 2))
    wait_for_end()

    assert are_here(reader, train(0, 1, 2))()
