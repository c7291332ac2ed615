"""The books of a shared pool, made from what a real server says: nothing is left out of them."""

import pytest
from redis import Redis

from brokers.pool.presence import announce
from brokers.rounds.index import JOBS_KEY
from brokers.wire import new_id
from kubeml.server.sharing import Sharing
from tests.protocol.jobs import ScriptedJob


@pytest.fixture
def client(pool_client: Redis) -> Redis:
    return pool_client


@pytest.fixture
def jobs(client: Redis) -> list[ScriptedJob]:
    """Two jobs that want four workers where there is one, which has the first."""
    announce(client, "w", "worker")
    made = [ScriptedJob(client, new_id()) for _ in range(2)]
    for job in made:
        job.begin_planned(slots=2)
        client.sadd(JOBS_KEY, job.store.job_id)
    made[0].join("a")
    return made


def test_all_jobs_are_booked_up_to_when_the_pool_was_read(jobs: list[ScriptedJob]) -> None:
    sharing = Sharing(jobs[0].client)

    for job in jobs:
        sharing.update(job.store, job.gen)

    first, second = (job.head for job in jobs)
    assert first["books_at"] == second["books_at"]
    assert (int(first["books_used_ms"]) >= 0, second["books_used_ms"]) == (True, "0")


def test_books_follow_worker_time_and_nothing_else(jobs: list[ScriptedJob]) -> None:
    job = jobs[0]
    Sharing(job.client).update(job.store, job.gen)
    before = job.head
    # As if 900 ms had passed, in which it had the worker for 700.
    at, used = int(before["books_at"]) - 900, int(before["books_used_ms"]) - 700
    job.client.hset(job.store.key("h"), mapping={"books_at": at, "books_used_ms": used})

    Sharing(job.client).update(job.store, job.gen)

    passed = int(job.head["books_at"]) - at
    had = int(job.head["books_used_ms"]) - used
    assert had >= 700
    booked = int(job.head["credit"]) - int(before["credit"])
    assert booked == pytest.approx(passed / 2 - had, abs=2)
