"""Case 23: an S3 server that fails, dawdles, cuts short, or hands out wrong bytes."""

from pathlib import Path

import pytest

from tests.faults.pool import FaultPool
from tests.integration.conftest import wait_for_round


def anything(_method: str, _path: str) -> bool:
    return True


def shard(method: str, path: str) -> bool:
    return method == "GET" and "/train-" in path


def bundle(method: str, path: str) -> bool:
    return method == "GET" and "/bundles/" in path


@pytest.mark.full
def test_case_23_s3_answers_with_errors(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)

    fault = pool.s3_link.add(anything, "error", times=12)

    pool.check(job)
    assert fault.hit == 12


@pytest.mark.full
def test_case_23_s3_is_slow(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)

    fault = pool.s3_link.add(anything, "slow", times=5)

    pool.check(job)
    assert fault.hit == 5


@pytest.mark.full
def test_case_23_s3_is_killed(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)

    pool.s3.kill()
    pool.s3.start()

    pool.check(job)


@pytest.mark.parametrize("how", [pytest.param("short", marks=pytest.mark.full), "wrong"])
def test_case_23_s3_hands_out_damaged_bytes(pool: FaultPool, tmp_path: Path, how: str) -> None:
    faults = [pool.s3_link.add(fits, how) for fits in (shard, bundle)]
    # A worker that has nothing in its cache yet.
    pool.start_victim("", KUBEML_CACHE_DIR=str(tmp_path / "cache"))
    pool.cluster.kill("worker")

    pool.check(pool.submit())

    assert [fault.hit for fault in faults] == [1, 1]
