"""Case 25: a worker whose clock is wrong, and a state server whose clock steps."""

from pathlib import Path

import pytest

from tests.faults.pool import FaultPool, failed_attempts
from tests.faults.servers import faketime_environment
from tests.integration.conftest import wait_for_round


@pytest.mark.full
@pytest.mark.parametrize("offset", ["+3600", "-3600"])
def test_case_25_clock_of_a_worker_is_off_by_an_hour(
    pool: FaultPool, tmp_path: Path, offset: str
) -> None:
    clock = tmp_path / "clock"
    clock.write_text(offset)
    pool.start_victim("", KUBEML_CACHE_DIR=str(tmp_path / "cache"), **faketime_environment(clock))
    pool.cluster.kill("worker")

    audit = pool.check(pool.submit(), within_s=100)

    assert failed_attempts(audit) == []


@pytest.mark.full
@pytest.mark.parametrize("offset", ["+3600", "-3600"])
def test_case_25_clock_of_the_state_server_steps(
    pool: FaultPool, tmp_path: Path, offset: str
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    pool.state.kill()
    pool.state.faketime = clock
    pool.state.start()
    try:
        job = pool.submit()
        wait_for_round(job, epoch=1, round_number=2)

        clock.write_text(offset)

        pool.check(job)
    finally:
        pool.state.kill()
        pool.state.faketime = None
