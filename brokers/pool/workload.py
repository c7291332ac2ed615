"""Reads what a pool has to do and which processes are there, for autoscaling and shares.

It takes two round trips, and one while the pool is idle.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brokers.messages.queues import DEVICES, infer_queue
from brokers.pool.inference_requests import REQUESTS_KEY
from brokers.pool.live_job import LiveJob, Workload
from brokers.pool.node import alive_among, server_time, silent_among
from brokers.pool.presence import NODES_KEY
from brokers.pool.request import awaited_among
from brokers.rounds.head import Head
from brokers.rounds.index import JOBS_KEY
from brokers.state.error_mapping import redis_errors
from brokers.wire import as_text

if TYPE_CHECKING:
    from redis import Redis

#: The fields of a job's head that are read.
_FIELDS = Head.names(
    "state",
    "device",
    "want",
    "slots",
    "stop",
    "lease_ms",
    "max_workers",
    "weight",
    "allot",
    "credit",
    "lean",
    "books_at",
    "books_used_ms",
    "used_at",
    "used_ms",
)


def read_workload(client: "Redis", *, where: str = "the state server") -> Workload:
    """Read jobs, processes and requests; ``client`` is a client of the state server."""
    with redis_errors(where):
        pipe = client.pipeline(transaction=False)
        pipe.smembers(JOBS_KEY)
        pipe.hgetall(NODES_KEY)
        pipe.hgetall(REQUESTS_KEY)
        pipe.time()
        members, rows, requests, clock = pipe.execute()
        ids = sorted(as_text(member) for member in members)
        for job_id in ids:
            prefix = f"kml:{{{job_id}}}"
            pipe.hmget(f"{prefix}:h", _FIELDS)
            pipe.hlen(f"{prefix}:c")
            pipe.zrange(f"{prefix}:p", 0, -1, withscores=True)
            pipe.zcard(f"{prefix}:d")
        answers = pipe.execute() if ids else []
    now_s = server_time(clock)
    jobs = [
        _live_job(job_id, answers[4 * at : 4 * at + 4], now_s * 1000)
        for at, job_id in enumerate(ids)
    ]
    return Workload(
        jobs=jobs,
        nodes=alive_among(rows, now_s),
        silent=silent_among(rows, now_s),
        requests=awaited_among(requests, now_s),
        at_ms=now_s * 1000,
    )


def read_waiting(client: "Redis", *, where: str = "the broker") -> dict[str, int]:
    """Return how many inference requests are queued, by device; ``client`` is the broker's."""
    with redis_errors(where):
        pipe = client.pipeline(transaction=False)
        for device in DEVICES:
            pipe.llen(infer_queue(device))
        return dict(zip(DEVICES, map(int, pipe.execute()), strict=True))


def busy_workers(client: "Redis", job_ids: Sequence[str]) -> set[str]:
    """Return the names of workers that hold a slot of these jobs or handed one in this round."""
    busy: set[str] = set()
    with redis_errors("the state server"):
        pipe = client.pipeline(transaction=False)
        for job_id in job_ids:
            prefix = f"kml:{{{job_id}}}"
            pipe.hvals(f"{prefix}:s")
            pipe.hvals(f"{prefix}:c")
        for records in pipe.execute() if job_ids else []:
            busy |= {name for record in records if (name := _worker(record))}
    return busy


def _worker(record: bytes) -> str:
    """Return whose lease or contribution it is; "" if it was given back, or is unreadable."""
    try:
        value = json.loads(as_text(record))
    except ValueError:
        return ""
    if not isinstance(value, dict) or not value.get("t", value.get("token")):
        return ""
    return str(value.get("w") or value.get("worker") or "")


def _live_job(job_id: str, answers: Sequence[Any], now_ms: float) -> LiveJob:
    fields, contributed, seen, tickets = answers
    head = Head.from_fields(dict(zip(_FIELDS, fields, strict=True)))
    oldest = now_ms - head.lease_ms
    used_ms = head.used_ms
    if head.used_at is not None:
        used_ms += len(seen) * max(0, int(now_ms) - int(head.used_at))
    return LiveJob(
        id=job_id,
        state=head.state,
        device=head.device,
        want=head.want,
        slots=head.slots,
        contributed=int(contributed),
        num_live=sum(1 for _, at in seen if at >= oldest),
        tickets=int(tickets),
        # A head without a cap may have 0.
        max_workers=head.max_workers or None,
        is_stopping=head.stop,
        weight=head.weight or 1,
        allot=head.allot,
        credit_ms=float(head.credit),
        lean=head.lean,
        used_ms=used_ms,
        unbooked_ms=0.0 if head.books_at is None else now_ms - head.books_at,
        unbooked_used_ms=used_ms - head.books_used_ms,
    )
