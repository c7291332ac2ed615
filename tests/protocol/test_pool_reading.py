"""Reading a pool's live state: all of it, and in as few round trips for many jobs as for one."""

import json
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.connection import Connection

from brokers.pool.inference_requests import awaited, take
from brokers.pool.job_reading import PoolReading
from brokers.pool.presence import announce
from brokers.pool.reading import QUEUES, read_pool
from brokers.rounds.store import RoundStore
from brokers.rounds.streams import JobStreams
from brokers.wire import new_id
from tests.protocol.jobs import ScriptedJob


@pytest.fixture
def state(redis_url: str) -> Iterator[Redis]:
    """A client of a database that no other test uses, emptied before."""
    with Redis.from_url(f"{redis_url.removesuffix('/0')}/9") as connection:
        connection.flushdb()
        yield connection


def read(state: Redis) -> PoolReading:
    return read_pool(state, state, where="here", broker_where="there")


def test_empty_pool_has_nothing_but_queues(state: Redis) -> None:
    reading = read(state)

    assert (reading.nodes, reading.jobs) == ([], [])
    assert reading.queues == dict.fromkeys(QUEUES, 0)
    assert {"kubeml.train.cpu", "kubeml.infer.gpu", "kubeml.control", "kubeml.ps"} <= set(QUEUES)


def test_job_is_read_with_everything_that_belongs_to_it(state: Redis) -> None:
    announce(state, "w1", "worker")
    job = ScriptedJob(state, "one").begin_planned(slots=2, rounds=3, device="cpu")
    streams = JobStreams(state, "one")
    for number in range(60):
        streams.emit("round", epoch=1, round=number, rounds=60, samples=10)
    cids = job.fill()
    entry = [{"slot": slot, "worker": "w1", "token": "t", "samples": 10} for slot in range(2)]
    answer, _ = job.store.advance(
        "1", job.rid, new_id(), weights=job.stage(), outer_state=None, cids=cids,
        ledger=json.dumps(entry),
    )  # fmt: skip
    assert answer == "OK"
    state.delete(job.store.key("p"))  # its worker has left
    first = job.join("token-1", worker="w1")
    job.contribute("token-1", first, num_samples=7)
    job.join("token-2", worker="w2")
    ticket = job.ticket()
    state.lpush("kubeml.train.cpu", "a", "b")

    reading = read(state)

    assert [node.name for node in reading.nodes] == ["w1"]
    assert reading.queues["kubeml.train.cpu"] == 2
    (one,) = reading.jobs
    assert (one.id, one.state, one.device, one.head.round) == ("one", "RUN", "cpu", 1)
    assert (one.leases[1]["t"], one.leases[1]["w"]) == ("token-2", "w2")
    assert (one.contributions[0]["token"], one.num_samples) == ("token-1", 7)
    assert set(one.live_tokens(reading.now_ms)) == {"token-1", "token-2"}
    assert one.live_tokens(reading.now_ms + 6001) == []
    assert len(one.tickets) == 1
    assert one.tickets[0] == state.zscore(job.store.key("d"), ticket)
    # The last events, oldest first.
    rounds = [event.fields["round"] for event in one.events]
    assert rounds == list(range(60 - len(rounds), 60))
    assert 20 < len(rounds) < 60
    assert one.merged == entry
    opened, merged, slots = one.timing
    assert len(slots) == 2
    assert 0 < merged < 60_000
    assert opened == pytest.approx(reading.now_ms, abs=60_000)


def test_requests_in_hand_are_read(state: Redis) -> None:
    with awaited(state, "t", device="cpu", within_s=60):
        take(state, "t", worker="w1")
        (request,) = read(state).requests

    assert (request.device, request.worker) == ("cpu", "w1")
    assert read(state).requests == []


def test_job_without_a_head_is_read_as_such(state: Redis) -> None:
    state.sadd("kubeml:jobs", "lost")

    (job,) = read(state).jobs

    assert (job.id, job.state, job.live_tokens(0), job.merged) == ("lost", "", [], [])


def test_many_jobs_cost_no_more_round_trips_than_one(
    state: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []
    send = Connection.send_packed_command

    def counted(self: Connection, command: object, **options: object) -> object:
        trips.append(1)
        return send(self, command, **options)  # type: ignore[no-untyped-call]

    def num_trips(jobs: int) -> int:
        for number in range(jobs):
            RoundStore(state, f"job-{number}").init(
                1, birth=new_id(), fields=ScriptedJob(state, "x").fields()
            )
        read(state)  # the connection is made
        trips.clear()
        assert len(read(state).jobs) == jobs
        return len(trips)

    monkeypatch.setattr(Connection, "send_packed_command", counted)

    few, many = num_trips(1), num_trips(20)

    assert few == many
    assert 0 < many <= 6
