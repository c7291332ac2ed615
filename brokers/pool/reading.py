"""Reads a whole pool at one moment from the servers: processes, live jobs, queues.

It takes the same few round trips, however many jobs there are. ``kubeml.pool.picture`` makes the
picture of it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brokers.messages.queues import CONTROL_QUEUE, DEVICES, PS_QUEUE, worker_queues
from brokers.pool.inference_requests import REQUESTS_KEY
from brokers.pool.job_reading import JobReading, PoolReading, Record
from brokers.pool.presence import alive_nodes
from brokers.pool.request import awaited_among
from brokers.rounds.events import Event
from brokers.rounds.head import Head
from brokers.rounds.index import live_jobs
from brokers.rounds.store import RoundStore
from brokers.state.error_mapping import redis_errors
from brokers.wire import as_text

if TYPE_CHECKING:
    from redis import Redis

#: How many of a job's last events are read: enough rounds to measure a speed.
_NUM_EVENTS = 40

QUEUES = (
    *(name for device in DEVICES for name in worker_queues(device)),
    CONTROL_QUEUE,
    PS_QUEUE,
)


def read_pool(
    state: "Redis", broker: "Redis | None", *, where: str, broker_where: str
) -> PoolReading:
    """Read the pool, in six round trips however many jobs there are; no broker, no queues.

    Raises:
        BackendUnreachable: A server does not answer.
    """
    stores = [RoundStore(state, job_id) for job_id in live_jobs(state, where=where)]
    nodes = alive_nodes(state)
    with redis_errors(where):
        pipe = state.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(REQUESTS_KEY)
        for store in stores:
            pipe.hgetall(store.key("h"))
            pipe.hgetall(store.key("s"))
            pipe.hgetall(store.key("c"))
            pipe.zrange(store.key("p"), 0, -1, withscores=True)
            pipe.zrange(store.key("d"), 0, -1, withscores=True)
            pipe.xrevrange(store.key("ev"), count=_NUM_EVENTS)
        clock, requests, *answers = pipe.execute()
        each = [answers[first : first + 6] for first in range(0, len(answers), 6)]
        heads = [Head.from_fields(answer[0]) for answer in each]
        ledgers = _last_rounds(state, stores, heads)
    now_ms = clock[0] * 1000 + clock[1] / 1000
    return PoolReading(
        now_ms=now_ms,
        nodes=nodes,
        jobs=[
            _job(store.job_id, head, answer[1:], ledger)
            for store, head, answer, ledger in zip(stores, heads, each, ledgers, strict=True)
        ],
        queues=queue_lengths(broker, where=broker_where) if broker is not None else {},
        requests=awaited_among(requests, now_ms / 1000),
    )


def _last_rounds(
    state: "Redis", stores: Sequence[RoundStore], heads: Sequence[Head]
) -> list[list[bytes | None]]:
    """Return each job's last merged round, as in its ledger, and the round's timing."""
    pipe = state.pipeline(transaction=False)
    for store, head in zip(stores, heads, strict=True):
        last = head.round - 1
        pipe.hmget(store.key("g"), [str(last), f"t{last}"])
    ledgers: list[list[bytes | None]] = pipe.execute()
    return ledgers


def queue_lengths(broker: "Redis", *, where: str) -> dict[str, int]:
    """Return each queue, to the number of messages that wait in it."""
    with redis_errors(where):
        pipe = broker.pipeline(transaction=False)
        for queue in QUEUES:
            pipe.llen(queue)
        return dict(zip(QUEUES, map(int, pipe.execute()), strict=True))


def _job(
    job_id: str, head: Head, answer: Sequence[Any], ledger: Sequence[bytes | None]
) -> JobReading:
    leases, contributions, participants, tickets, events = answer
    merged, timing = (None if text is None else json.loads(as_text(text)) for text in ledger)
    return JobReading(
        id=job_id,
        head=head,
        leases=_records(leases),
        contributions=_records(contributions),
        participants={as_text(token): at for token, at in participants},
        tickets=[at for _, at in tickets],
        events=[Event.from_entry(as_text(entry), fields) for entry, fields in reversed(events)],
        merged=merged or [],
        timing=timing,
    )


def _records(raw: Mapping[bytes, bytes]) -> dict[int, Record]:
    return {int(slot): json.loads(as_text(text)) for slot, text in raw.items()}
