"""Which jobs the live state knows. They are kept in two small sets, never found by KEYS or SCAN."""

import time
from typing import TYPE_CHECKING, Any

from brokers.state.error_mapping import redis_errors

if TYPE_CHECKING:
    from redis import Redis

#: Live jobs, so that a parameter server knows which jobs to look after.
JOBS_KEY = "kubeml:jobs"

#: Jobs that ended within ENDED_TTL_S: id by the time of the end.
ENDED_KEY = "kubeml:ended"

#: How long the state of an ended job stays readable before it expires.
ENDED_TTL_S = 3600


def live_jobs(client: "Redis", *, where: str = "the state server") -> list[str]:
    """Return the ids of the jobs that have not ended, sorted."""
    with redis_errors(where):
        members: Any = client.smembers(JOBS_KEY)
    return sorted(member.decode() for member in members)


def ended_jobs(client: "Redis", *, where: str = "the state server") -> list[str]:
    """Return the ids of the jobs that ended lately, oldest first, and forget older ones."""
    with redis_errors(where):
        client.zremrangebyscore(ENDED_KEY, "-inf", time.time() - ENDED_TTL_S)
        members: Any = client.zrange(ENDED_KEY, 0, -1)
    return [member.decode() for member in members]
