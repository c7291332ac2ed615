"""Cases 10 to 15: parameter servers and schedulers that die, stand still, or hear nothing."""

import pytest

from brokers.messages.queues import CONTROL_QUEUE
from brokers.state.connections import broker_client
from kubeml.jobs.spec import State
from tests.eventually import eventually
from tests.faults.pool import FaultPool, failed_attempts, longest_pause

#: A new one is started as soon as the old one is seen dead, as the supervisor does; then comes
#: its start (1 to 2 s), and the tick after its predecessor's lease (1.5 s) has run out.
BOUND_S = 5.0

IN_MID_EPOCH = "epoch=1,round=1"


def kill_and_replace(pool: FaultPool, rule: str) -> float:
    """Let the only parameter server die at a point, start another, and return the longest pause."""
    victim = pool.replace_ps(rule)
    point = rule.split("=", maxsplit=1)[0]
    job = pool.submit()
    pool.wait_for_fire(victim, point)
    eventually(
        lambda: pool.cluster.processes[victim].poll() is not None, within_s=5, what="its death"
    )
    pool.cluster.start_ps()

    audit = pool.check(job)

    assert failed_attempts(audit) == []  # no slot was trained again
    return longest_pause(job)


@pytest.mark.full
@pytest.mark.parametrize("point", ["read", "aggregating"])
def test_case_10_parameter_server_killed_before_staging(pool: FaultPool, point: str) -> None:
    assert kill_and_replace(pool, f"ps.{point}=kill@{IN_MID_EPOCH}") < BOUND_S


def test_case_11_parameter_server_killed_between_staging_and_advance(pool: FaultPool) -> None:
    assert kill_and_replace(pool, f"ps.after_stage=kill@{IN_MID_EPOCH}") < BOUND_S


@pytest.mark.full
def test_case_12_parameter_server_killed_just_after_advance(pool: FaultPool) -> None:
    assert kill_and_replace(pool, f"ps.after_advance=kill@{IN_MID_EPOCH}") < BOUND_S


@pytest.mark.full
def test_case_13_two_parameter_servers_one_of_them_paused(pool: FaultPool) -> None:
    paused = pool.replace_ps(f"ps.after_stage=stop:4@{IN_MID_EPOCH}")
    job = pool.submit()
    pool.wait_for_fire(paused, "ps.after_stage")
    pool.cluster.start_ps()

    audit = pool.check(job)

    # When it goes on, its ADVANCE is STALE: the version counts each round once.
    assert failed_attempts(audit) == []
    eventually(lambda: pool.cluster.processes[paused].poll() is None, within_s=5, what="paused one")
    assert longest_pause(job) < BOUND_S
    pool.check(pool.submit())  # with both of them


@pytest.mark.full
@pytest.mark.parametrize(
    "point", ["before_checkpoint", "after_objects", "after_manifest", "after_finish"]
)
def test_case_14_parameter_server_killed_around_the_checkpoint(pool: FaultPool, point: str) -> None:
    # Epoch 0 is written when the job begins: the point is that of the first epoch.
    assert kill_and_replace(pool, f"ps.{point}=kill@epoch=1") < BOUND_S


@pytest.mark.full
@pytest.mark.parametrize("point", ["before_plan", "after_plan"])
def test_case_15_scheduler_killed(pool: FaultPool, point: str) -> None:
    victim = pool.replace_control(f"scheduler.{point}=kill@epoch=2")
    job = pool.submit()
    pool.wait_for_fire(victim, f"scheduler.{point}")
    # Its next child would die at the same point.
    pool.cluster.kill(victim)
    pool.cluster.start_control()

    pool.check(job)

    assert longest_pause(job) < 12


def test_case_15_scheduler_messages_lost_doubled_and_late(pool: FaultPool) -> None:
    broker = broker_client(pool.direct)
    pool.cluster.kill("control")
    job = pool.submit()
    eventually(lambda: broker.llen(CONTROL_QUEUE), within_s=10, what="request for a plan")
    message = broker.rpop(CONTROL_QUEUE)
    broker.delete(CONTROL_QUEUE)  # lost
    pool.cluster.start_control()
    for _ in range(3):  # doubled
        broker.lpush(CONTROL_QUEUE, message)

    pool.check(job)

    broker.lpush(CONTROL_QUEUE, message)  # late
    eventually(lambda: broker.llen(CONTROL_QUEUE) == 0, within_s=10, what="served queue")
    broker.close()
    assert job.status().state is State.DONE
    pool.check(job)
