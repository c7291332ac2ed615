"""Shards on their way from S3 to real workers: each once, and ahead of the training."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeml.catalog import upload
from kubeml.jobs.plan import WINDOW_SHARDS
from tests.eventually import eventually
from tests.faults.pool import FaultPool
from tests.faults.s3_proxy import Fault
from tests.integration.conftest import put_points

#: A row of points takes 40 bytes.
ROWS_PER_SHARD = 30


@pytest.fixture
def sharded(pool: FaultPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two shuffle windows of the points, in shards of 30 rows."""
    monkeypatch.setattr(upload, "SHARD_BYTES", 40 * ROWS_PER_SHARD)
    put_points(pool.client, rows=2 * WINDOW_SHARDS * ROWS_PER_SHARD, name="sharded")
    yield "sharded"
    pool.client.delete_dataset("sharded")


def count_shards(pool: FaultPool) -> Fault:
    """Counts what is read of shards through the proxy, from now on."""
    return pool.s3_link.add(
        lambda method, path: method == "GET" and ("/train-" in path or "/test-" in path),
        "count",
        times=10**9,
    )


def start_fresh_workers(pool: FaultPool, cache: Path, *, count: int) -> list[str]:
    """Workers of one machine whose cache is empty, in the healthy one's place."""
    names = [pool.start_victim("", KUBEML_CACHE_DIR=str(cache)) for _ in range(count)]
    pool.cluster.kill("worker")
    for name in names:
        pool.cluster.wait_for(name)
    return names


def test_every_shard_is_read_once_and_later_epochs_ask_s3_for_none(
    pool: FaultPool, sharded: str, tmp_path: Path
) -> None:
    manifest = pool.client.datasets.show(sharded)
    start_fresh_workers(pool, tmp_path / "cache", count=2)
    reads = count_shards(pool)

    pool.submit("tiny", dataset=sharded, epochs=3, parallelism=2, k=-1).wait(60)
    in_first_job = reads.hit
    pool.submit("tiny", dataset=sharded, epochs=2, parallelism=2, k=-1).wait(60)

    assert in_first_job == len(manifest.train.shards) + len(manifest.test.shards)
    assert reads.hit == in_first_job


@pytest.mark.full
def test_shards_of_the_next_window_come_while_the_first_one_is_trained(
    pool: FaultPool, sharded: str, tmp_path: Path
) -> None:
    rounds_per_window = WINDOW_SHARDS * ROWS_PER_SHARD // (10 * 6)
    start_fresh_workers(pool, tmp_path / "cache", count=1)
    reads = count_shards(pool)

    job = pool.submit(dataset=sharded, epochs=1, parallelism=1)
    eventually(lambda: reads.hit >= 2 * WINDOW_SHARDS, within_s=60, what="shards of both windows")
    merged = job.status().round
    end = job.wait(60)

    assert merged < rounds_per_window - 1
    assert end.epoch == 1
