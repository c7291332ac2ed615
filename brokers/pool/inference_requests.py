"""The table of inference requests that a client waits for, also those that a worker has in hand.

A worker takes a request off its queue before it is ready to answer. So the queue's length does not
tell whether a worker is needed: a pool that went by it would end that very worker.
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
    """Tell the pool that an answer is waited for, for the time of a ``with`` block.

    Requests whose time is over are forgotten on the way.

    Args:
        client: A client of the state server.
        ticket: The request's ticket.
        device: The device that its worker must have.
        within_s: How long we will wait, from now. The request is forgotten after that, since a
            waiting client may die without a word.
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
            # The answer is what counts; the request is forgotten when its time is over.
            logger.warning("request %s could not be withdrawn: %s", ticket, err)


def take(client: "Redis", ticket: str, *, worker: str) -> None:
    """Note which worker has a request in hand. A request that was withdrawn stays forgotten.

    Args:
        client: A client of the state server.
        ticket: The request's ticket.
        worker: The worker's name in the pool.
    """
    with redis_errors("the state server"):
        text: Any = client.hget(REQUESTS_KEY, ticket)
        request = read_request(text) if text else None
        if request is not None:
            # Should it be withdrawn at this very moment, it is forgotten when its time is over.
            _write(client, ticket, replace(request, worker=worker))


def _write(client: "Redis", ticket: str, request: Request) -> None:
    client.hset(REQUESTS_KEY, ticket, json.dumps(asdict(request)))
