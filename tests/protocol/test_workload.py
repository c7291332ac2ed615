"""What a pool has to do, read from a real server: a round under way, processes, requests."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis

from brokers.job_index import JOBS_KEY
from brokers.nodes import NODES_KEY, announce
from brokers.queues import infer_queue
from brokers.settings import Settings
from brokers.workload import LiveJob, busy_workers, read_waiting, read_workload
from tests.cluster import on_database
from tests.protocol.jobs import ScriptedJob


@pytest.fixture
def client(redis_url: str, base_settings: Settings) -> Iterator[Redis]:
    """A database of this test's own: the whole pool is read."""
    made = Redis.from_url(str(on_database(base_settings, 14).state_url))
    made.flushdb()
    yield made
    made.flushdb()
    made.close()


@pytest.fixture
def job(client: Redis, job_id: str) -> ScriptedJob:
    return ScriptedJob(client, job_id)


def test_job_in_the_middle_of_a_round_is_read_in_one_go(client: Redis, job: ScriptedJob) -> None:
    job.begin_planned(slots=3, device="gpu", max_workers=2)
    job.contribute("a", job.join("a"))
    job.join("b")
    job.ticket()

    (seen,) = read_workload(client).jobs

    assert seen == LiveJob(
        id=job.store.job_id, state="RUN", device="gpu", want=3, slots=3, contributed=1, num_live=2,
        tickets=1, max_workers=2,
    )  # fmt: skip


def test_participant_not_seen_within_a_lease_does_not_count(
    client: Redis, job: ScriptedJob
) -> None:
    job.begin_planned(slots=2)
    job.join("a")
    before = read_workload(client).jobs[0]
    client.zadd(job.store.key("p"), {"a": 1})

    after = read_workload(client).jobs[0]

    assert (before.num_live, after) == (1, replace(before, num_live=0))


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
