"""Cases 1 to 9: workers that die, stand still, hang or fail."""

import pytest

from kubeml.errors import JobFailed
from kubeml.jobs.spec import State
from tests.eventually import eventually
from tests.faults.pool import FaultPool, failed_attempts, longest_pause
from tests.integration.conftest import wait_for_round

#: The leases of these jobs last 2 s; then come the next tick and the work itself.
BOUND_S = 8.0

#: In the first attempt alone: the child that takes a dead one's place has the same fail points.
ONCE = "epoch=2,round=1,attempt=1"


@pytest.mark.full
def test_case_01_worker_killed_in_mid_training(pool: FaultPool) -> None:
    victim = pool.start_victim(f"worker.mid_train=kill@{ONCE},batch=3")
    job = pool.submit()

    audit = pool.check(job)

    assert pool.has_fired(victim, "worker.mid_train")
    assert {kind for *_, kind in failed_attempts(audit)} == {"lost"}
    assert longest_pause(job) < BOUND_S


@pytest.mark.full
def test_case_02_worker_killed_between_pushes(pool: FaultPool) -> None:
    victim = pool.start_victim(f"worker.pushed=kill@{ONCE}")
    job = pool.submit()

    audit = pool.check(job)  # its orphan chunks expire: looked at there

    assert pool.has_fired(victim, "worker.pushed")
    assert {kind for *_, kind in failed_attempts(audit)} == {"lost"}
    assert longest_pause(job) < BOUND_S


def test_case_03_worker_killed_right_after_contributing(pool: FaultPool) -> None:
    victim = pool.start_victim(f"worker.after_contrib=kill@{ONCE}")
    job = pool.submit()

    audit = pool.check(job)

    assert pool.has_fired(victim, "worker.after_contrib")
    assert failed_attempts(audit) == []


@pytest.mark.full
def test_case_04_worker_paused_for_longer_than_its_lease(pool: FaultPool) -> None:
    victim = pool.start_victim(f"worker.before_contrib=stop:5@{ONCE}")
    job = pool.submit(epochs=2)

    audit = pool.check(job)

    assert pool.has_fired(victim, "worker.before_contrib")
    assert {(epoch, r, kind) for epoch, r, _, kind in failed_attempts(audit)} == {(2, 1, "lost")}
    # It woke up, was refused, and lives.
    eventually(
        lambda: "slot" in pool.cluster.log(victim).split("fail point")[1],
        within_s=20, what="refusal",
    )  # fmt: skip
    assert pool.cluster.processes[victim].poll() is None


@pytest.mark.full
def test_case_05_worker_paused_for_less_than_its_lease(pool: FaultPool) -> None:
    victim = pool.start_victim(f"worker.mid_train=stop:3@{ONCE},batch=2")
    job = pool.submit(lease_s=6.0)

    audit = pool.check(job)

    assert pool.has_fired(victim, "worker.mid_train")
    assert failed_attempts(audit) == []


@pytest.mark.full
def test_case_06_all_workers_killed(pool: FaultPool) -> None:
    job = pool.submit()
    wait_for_round(job, round_number=2)

    pool.cluster.kill("worker")
    # A round that was complete is merged still; then nothing moves.
    eventually(lambda: job.status().num_workers == 0, within_s=10, what="pool without workers")
    before = pool.version(job)
    pool.cluster.start_worker("worker")

    assert pool.version(job) == before
    pool.check(job)


@pytest.mark.full
def test_case_07_trainer_that_hangs_loses_its_slot(pool: FaultPool) -> None:
    victim = pool.start_victim(f"worker.mid_train=sleep:600@{ONCE},batch=3", KUBEML_STALL_S="1.5")
    job = pool.submit()

    audit = pool.check(job)

    assert pool.has_fired(victim, "worker.mid_train")
    assert {kind for *_, kind in failed_attempts(audit)} == {"error"}
    assert "no batch" in audit.epochs[1].failed[0].why
    assert longest_pause(job) < BOUND_S
    # The process is of use again.
    pool.cluster.kill("worker")
    pool.submit(epochs=1).wait(60)


def test_case_08_function_that_raises_each_time(pool: FaultPool) -> None:
    job = pool.submit("raises")

    with pytest.raises(JobFailed) as failed:
        job.wait(60)

    assert "Traceback" in failed.value.reason
    assert "raises.py" in failed.value.reason
    assert job.status().state is State.FAILED


@pytest.mark.full
@pytest.mark.parametrize("function", ["crashes", "crashes_at_start"])
def test_case_09_function_that_kills_its_process(pool: FaultPool, function: str) -> None:
    job = pool.submit(function, lease_s=1.0)

    with pytest.raises(JobFailed, match="was lost 10 times"):
        job.wait(110)

    # The pool is none the worse for it.
    pool.check(pool.submit())


def test_worker_told_to_go_delays_nobody(pool: FaultPool) -> None:
    leaving = pool.start_victim("")
    job = pool.submit(lease_s=6.0)
    wait_for_round(job, epoch=2, round_number=1)
    last = job.recent_events()[-1].id

    status = pool.cluster.terminate(leaving, within_s=10)

    audit = pool.check(job)
    assert status == 0
    # Its slot was handed back: nobody waited for a lease to run out.
    assert {kind for *_, kind in failed_attempts(audit)} <= {"drain"}
    assert longest_pause(job, since=last) < 3.0
