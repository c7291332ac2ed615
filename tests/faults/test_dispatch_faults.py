"""Cases 16 and 17: dispatches that are lost or doubled."""

import pytest

from brokers.messages.queues import first_queue
from brokers.state.connections import broker_client
from tests.eventually import eventually
from tests.faults.pool import FaultPool, failed_attempts

#: Where the first dispatch of a new job waits.
QUEUE = first_queue("cpu")


def test_case_16_dispatch_messages_lost(pool: FaultPool) -> None:
    broker = broker_client(pool.direct)
    pool.cluster.kill("worker")
    job = pool.submit()
    for _ in range(2):
        eventually(lambda: broker.llen(QUEUE), within_s=20, what="dispatch, or its repetition")
        broker.delete(QUEUE)
    broker.close()

    pool.cluster.start_worker("worker")

    assert failed_attempts(pool.check(job)) == []


@pytest.mark.full
def test_case_17_dispatches_doubled(pool: FaultPool) -> None:
    broker = broker_client(pool.direct)
    pool.cluster.kill("worker")
    job = pool.submit()
    eventually(lambda: broker.llen(QUEUE), within_s=20, what="dispatch")
    for message in broker.lrange(QUEUE, 0, -1):
        broker.lpush(QUEUE, *[message] * 3)

    pool.cluster.start_worker("worker")

    assert failed_attempts(pool.check(job)) == []
    eventually(lambda: broker.llen(QUEUE) == 0, within_s=10, what="empty queue")
    broker.close()


@pytest.mark.full
def test_case_17_every_dispatch_and_contribution_sent_twice(pool: FaultPool) -> None:
    ps = pool.replace_ps("ps.before_dispatch=dup@times=1000")
    broker = broker_client(pool.direct)
    pool.cluster.kill("worker")
    job = pool.submit()
    eventually(lambda: broker.llen(QUEUE), within_s=20, what="dispatch")
    broker.delete(QUEUE)  # the parameter server repeats it, doubled
    broker.close()
    victim = pool.start_victim("worker.before_contrib=dup@times=1000")

    audit = pool.check(job)

    assert pool.has_fired(ps, "ps.before_dispatch")
    assert pool.has_fired(victim, "worker.before_contrib")
    assert failed_attempts(audit) == []
