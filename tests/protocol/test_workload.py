"""What a pool has to do, read from a real server: a round under way, processes, requests."""

import json
from dataclasses import replace

import pytest
from redis import Redis

from brokers.messages.queues import infer_queue
from brokers.pool.live_job import LiveJob
from brokers.pool.node import server_time
from brokers.pool.presence import NODES_KEY, announce
from brokers.pool.workload import busy_workers, read_waiting, read_workload
from brokers.rounds.index import JOBS_KEY
from tests.protocol.jobs import ScriptedJob


@pytest.fixture
def client(pool_client: Redis) -> Redis:
    return pool_client


@pytest.fixture
def job(client: Redis, job_id: str) -> ScriptedJob:
    return ScriptedJob(client, job_id)


def test_job_in_the_middle_of_a_round_is_read_in_one_go(client: Redis, job: ScriptedJob) -> None:
    job.begin_planned(slots=3, device="gpu", max_workers=2)
    job.contribute("a", job.join("a"))
    job.join("b")
    job.ticket()

    (seen,) = read_workload(client).jobs

    assert replace(seen, used_ms=0, unbooked_used_ms=0) == LiveJob(
        id=job.store.job_id, state="RUN", device="gpu", want=3, slots=3, contributed=1, num_live=2,
        tickets=1, max_workers=2,
    )  # fmt: skip


def test_participant_not_seen_within_a_lease_does_not_count(
    client: Redis, job: ScriptedJob
) -> None:
    job.begin_planned(slots=2)
    job.join("a")
    (before,) = read_workload(client).jobs
    client.zadd(job.store.key("p"), {"a": 1})

    (after,) = read_workload(client).jobs

    assert (before.num_live, after.num_live) == (1, 0)
    # It is its worker's until somebody gives it up.
    assert after.used_ms >= before.used_ms


def test_worker_time_is_read_up_to_now(client: Redis, job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    job.join("a")
    job.join("b")
    begun_ms = int(server_time(client.time()) * 1000)
    books = {"books_at": begun_ms - 400, "books_used_ms": 700}
    counted = {"used_at": begun_ms - 1000, "used_ms": 500}
    client.hset(job.store.key("h"), mapping={**books, **counted})

    workload = read_workload(client)

    (seen,), passed_ms = workload.jobs, workload.at_ms - begun_ms
    assert passed_ms >= 0
    assert seen.used_ms == pytest.approx(500 + 2 * (1000 + passed_ms), abs=2)
    assert seen.unbooked_ms == pytest.approx(400 + passed_ms)
    assert seen.unbooked_used_ms == seen.used_ms - 700


@pytest.mark.parametrize("garbage", ["much", "inf", "nan", b"\xff"])
def test_head_that_nobody_can_read_stops_nobody_from_reading_the_rest(
    client: Redis, job: ScriptedJob, garbage: str | bytes
) -> None:
    job.begin_planned(slots=2)
    client.hset(job.store.key("h"), mapping={"want": garbage, "max_workers": garbage})

    (seen,) = read_workload(client).jobs

    assert (seen.slots, seen.want, seen.max_workers) == (2, 0, None)


def test_job_without_a_head_and_one_that_was_told_to_stop_are_known_as_such(
    client: Redis, job: ScriptedJob
) -> None:
    job.begin_planned()
    job.store.stop(job.gen)
    client.sadd(JOBS_KEY, "zzz-lost")

    stopping, lost = read_workload(client).jobs

    assert (stopping.is_stopping, stopping.max_workers) == (True, None)
    assert lost == LiveJob(id="zzz-lost", state="")


def test_idle_pool_is_read_with_its_processes(client: Redis) -> None:
    announce(client, "w", "worker", device="gpu", gpu="0", facts={"cores": 4, "gpu_name": "T4"})
    announce(client, "long-gone", "worker")
    silent = json.loads(client.hget(NODES_KEY, "long-gone"))  # type: ignore[arg-type]
    client.hset(NODES_KEY, "long-gone", json.dumps(silent | {"at": silent["at"] - 60}))
    client.hset(NODES_KEY, "newer", json.dumps(silent | {"shoes": 2}))
    for text in ("[]", "7", "{", '"w"', "{}"):
        client.hset(NODES_KEY, f"unreadable {text}", text)

    now = read_workload(client)

    assert now.jobs == []
    newer, worker = now.nodes
    assert newer.name == "newer"
    assert (worker.name, worker.device, worker.gpu, worker.gpu_name) == ("w", "gpu", "0", "T4")
    assert (worker.cores, worker.memory_bytes, worker.room) == (4, 0, 0)


def test_requests_that_wait_are_counted_by_device(client: Redis) -> None:
    client.lpush(infer_queue("gpu"), "one", "two")

    assert read_waiting(client) == {"cpu": 0, "gpu": 2}


def test_workers_with_a_slot_in_hand_or_handed_in_are_busy(client: Redis, job: ScriptedJob) -> None:
    job.begin_planned(slots=4)
    job.join("one", worker="holds")
    job.contribute("two", job.join("two", worker="gave in"), worker="gave in")
    given_back = job.join("three", worker="gave back").slot
    job.store.kick(job.gen, job.rid, slot=given_back, who="three", kind="drain", why="")
    client.hset(job.store.key("c"), "3", "nonsense")

    assert busy_workers(client, [job.store.job_id, "unknown"]) == {"holds", "gave in"}
    assert busy_workers(client, []) == set()
