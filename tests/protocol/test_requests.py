"""The inference requests that somebody waits for, in a real server."""

import json

import pytest
from redis import Redis

from brokers.pool.inference_requests import REQUESTS_KEY, awaited, take
from brokers.pool.request import Request
from brokers.pool.workload import read_workload


def requests(client: Redis) -> list[Request]:
    return list(read_workload(client).requests)


def test_request_is_known_until_who_asked_has_the_answer(client: Redis) -> None:
    with awaited(client, "t", device="gpu", within_s=60):
        (waits,) = requests(client)
        take(client, "t", worker="w")
        (in_hand,) = requests(client)

    assert (waits.device, waits.worker) == ("gpu", "")
    assert (in_hand.device, in_hand.worker, in_hand.until) == ("gpu", "w", waits.until)
    assert client.hlen(REQUESTS_KEY) == 0


def test_request_is_withdrawn_when_nobody_answered(client: Redis) -> None:
    with pytest.raises(TimeoutError), awaited(client, "t", device="cpu", within_s=60):
        raise TimeoutError

    assert client.hlen(REQUESTS_KEY) == 0


def test_request_of_one_who_died_counts_until_its_time_and_is_forgotten(client: Redis) -> None:
    died = awaited(client, "died", device="cpu", within_s=-1)
    died.__enter__()
    client.hset(REQUESTS_KEY, "garbage", "{")

    assert requests(client) == []
    with awaited(client, "next", device="cpu", within_s=60):
        assert client.hkeys(REQUESTS_KEY) == [b"next"]


def test_worker_takes_no_request_that_nobody_waits_for(client: Redis) -> None:
    take(client, "gone", worker="w")

    assert client.hlen(REQUESTS_KEY) == 0


def test_row_of_a_newer_version_is_read(client: Redis) -> None:
    with awaited(client, "t", device="cpu", within_s=60):
        row = json.loads(client.hget(REQUESTS_KEY, "t"))  # type: ignore[arg-type]
        client.hset(REQUESTS_KEY, "t", json.dumps(row | {"shoes": 2}))

        assert [request.device for request in requests(client)] == ["cpu"]
