"""The inference requests that somebody waits for, those that a worker has in hand included.

A worker takes a request off its queue before it is ready to answer it, so that the queue's length
does not say whether anybody is needed: a pool that went by it would send that very worker away.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from brokers.errors import KubemlError
from brokers.pool.node import server_time
from brokers.pool.request import Request, if_awaited, read_request
from brokers.state.error_mapping import redis_errors

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

REQUESTS_KEY = "kubeml:requests"


@contextmanager
def awaited(
    client: "Redis",
    ticket: str,
    *,
    device: str,
    within_s: float,
    where: str = "the state server",
) -> Iterator[None]:
    """Let the pool know that an answer is waited for; those that nobody waits for are forgotten.

    Args:
        client: Of the state server.
        ticket: The request's.
        device: What its worker must have.
        within_s: How long it is waited for, from now: who waits may die without a word.
        where: Address of the server, for errors.
    """
    with redis_errors(where):
        clock: Any = client.time()
        now = server_time(clock)
        rows: Any = client.hgetall(REQUESTS_KEY)
        left = [key for key, text in rows.items() if not if_awaited(text, now)]
        if left:
            client.hdel(REQUESTS_KEY, *left)
        _write(client, ticket, Request(device=device, until=now + within_s))
    try:
        yield
    finally:
        try:
            with redis_errors(where):
                client.hdel(REQUESTS_KEY, ticket)
        except KubemlError as err:
            # The answer counts; the request is forgotten by its time.
            logger.warning("request %s could not be withdrawn: %s", ticket, err)


def take(client: "Redis", ticket: str, *, worker: str) -> None:
    """Say which worker has a request in hand. One that nobody waits for any more stays forgotten.

    Args:
        client: Of the state server.
        ticket: The request's.
        worker: The worker's name in the pool.
    """
    with redis_errors("the state server"):
        text: Any = client.hget(REQUESTS_KEY, ticket)
        request = read_request(text) if text else None
        if request is not None:
            # Should it be withdrawn in this moment, its time ends it.
            _write(client, ticket, replace(request, worker=worker))


def _write(client: "Redis", ticket: str, request: Request) -> None:
    client.hset(REQUESTS_KEY, ticket, json.dumps(asdict(request)))
