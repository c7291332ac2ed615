"""Cases 18 to 22: state server and broker that die, forget, go back in time, or are full."""

from pathlib import Path

import pytest

from brokers.state.connections import state_client
from kubeml.ops.doctor import examine
from tests.eventually import eventually
from tests.faults.pool import ROUNDS, FaultPool
from tests.integration.conftest import wait_for_round


def test_case_18_state_server_restarted_empty(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=2, round_number=1)

    pool.state.kill()
    pool.state.empty()
    pool.state.start()

    audit = pool.check(job)
    assert len(audit.generations) == 2
    assert [epoch.gen for epoch in audit.epochs] == [1, 2]  # one epoch redone, not two


@pytest.mark.full
def test_case_19_state_server_set_back_to_an_older_snapshot(
    pool: FaultPool, tmp_path: Path
) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=1)
    pool.state.save(tmp_path / "older")
    wait_for_round(job, epoch=2, round_number=1)

    pool.state.kill()
    pool.state.restore(tmp_path / "older")
    pool.state.start()

    pool.check(job)


@pytest.mark.full
@pytest.mark.parametrize("forgets", [False, True], ids=["with its AOF", "without"])
def test_case_20_broker_restarted(pool: FaultPool, *, forgets: bool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)
    before = pool.version(job)

    pool.broker.kill()
    # Training goes on meanwhile: the messages of this epoch have arrived.
    pool.wait_for_progress(job, beyond=before, within_s=10)
    if forgets:
        pool.broker.empty()
    pool.broker.start()

    pool.check(job)


@pytest.mark.full
def test_case_20_state_server_restarted_with_its_file(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)

    pool.cluster.kill("worker")  # so that nobody merges new weights before the old ones are missed
    pool.state.kill()
    pool.state.start()

    # The file has no tensors in it: the parameter server gives back the weights that it merged.
    eventually(
        lambda: f"{job.id}: its weights were lost, and are restored" in pool.cluster.log("ps"),
        within_s=10, what="restored weights",
    )  # fmt: skip
    pool.cluster.start_worker("worker")
    assert len(pool.check(job).generations) == 1


def test_case_22_state_server_full(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)
    admin = state_client(pool.direct)

    admin.config_set("maxmemory", 1)
    try:
        eventually(
            lambda: any("maxmemory" in pool.cluster.log(name) for name in ("ps", "worker")),
            within_s=10, what="refusal for want of memory",
        )  # fmt: skip
        stuck = pool.version(job)
        memory = next(f for f in examine(pool.direct) if f.check == "redis memory")
    finally:
        admin.config_set("maxmemory", 0)
        admin.close()

    assert memory.level == "bad"
    assert stuck < 2 * ROUNDS + 1
    pool.check(job)


@pytest.mark.full
def test_case_22_disk_of_the_state_server_full(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, epoch=1, round_number=2)
    admin = state_client(pool.direct)

    pool.state.limit_files(pool.state.file_bytes)
    try:
        eventually(
            lambda: admin.info("persistence")["aof_last_write_status"] != "ok",
            within_s=15, what="write that fails",
        )  # fmt: skip
        persistence = [f for f in examine(pool.direct) if f.check == "redis persistence"]
    finally:
        pool.state.limit_files(-1)
        admin.close()

    assert [finding.level for finding in persistence] == ["bad"]
    pool.check(job)
