"""A job of this test's own on the run's state server."""

from collections.abc import Iterator

import pytest
from redis import Redis

from brokers.settings import Settings
from tests.cluster import on_database
from tests.protocol.jobs import ScriptedJob


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A client of the state server, closed afterwards."""
    with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def pool_client(redis_url: str, base_settings: Settings) -> Iterator[Redis]:
    """A client of an empty database of this test's own, for what reads the whole pool."""
    with Redis.from_url(str(on_database(base_settings, 14).state_url)) as connection:
        connection.flushdb()
        yield connection
        connection.flushdb()


@pytest.fixture
def job(client: Redis, job_id: str) -> ScriptedJob:
    """A job that nothing was done to yet, on the scripts as they are."""
    return ScriptedJob(client, job_id)


@pytest.fixture
def clocked_job(client: Redis, job_id: str) -> ScriptedJob:
    """A job whose scripts read a clock that the test sets."""
    return ScriptedJob(client, job_id, has_set_clock=True)
