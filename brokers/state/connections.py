"""Connections to Redis: one way to make a client, with time-outs that never let it hang.

Make clients after a fork, never before: a socket shared by two processes mixes their replies.
"""

from typing import TYPE_CHECKING, Any

from brokers.errors import InvalidSetting
from brokers.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

#: Server-side blocking waits stay below the socket time-out, and below what redis-py cuts.
MAX_BLOCK_MS = 2000


def state_client(settings: Settings) -> "Redis":
    """A client of the state server; replies are bytes."""
    return _client("state_url", settings)


def broker_client(settings: Settings) -> "Redis":
    """A client of the broker's server, for queue lengths: nobody is to wait long for those."""
    return _client("broker_url", settings, socket_timeout=2, retries=1)


def watch_client(settings: Settings) -> "Redis":
    """A client of the state server, for who must not wait long for what it only looks at."""
    return _client("state_url", settings, socket_timeout=2, retries=1)


def quick_client(settings: Settings, name: str) -> "Redis":
    """A client of ``state_url`` or ``broker_url`` that tells within 5 s whether it answers."""
    return _client(name, settings, socket_timeout=2, retries=0)


def stream_entries(answer: Any) -> list[tuple[bytes, Any]]:
    """The (id, fields) of an XREAD of one stream, in whatever shape the protocol gives them."""
    streams = answer.items() if isinstance(answer, dict) else answer or []
    # RESP3 nests the entries once more than RESP2.
    return [
        entry
        for _, entries in streams
        for entry in (entries[0] if isinstance(answer, dict) else entries)
    ]


def _client(
    name: str, settings: Settings, *, socket_timeout: float = 10, retries: int = 3
) -> "Redis":
    # Imported here: `kubeml --help` must not pay for it.
    from redis import Redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    url: str = getattr(settings, name)
    # Only what goes through a network has anything to keep alive.
    network = {} if url.startswith("unix:") else {"socket_keepalive": True}
    try:
        return Redis.from_url(
            url,
            socket_timeout=socket_timeout,
            socket_connect_timeout=3,
            **network,
            health_check_interval=10,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=retries),
        )
    except ValueError as err:
        # What stands behind its question mark is read by redis-py alone.
        raise InvalidSetting(setting=name, fault=str(err)) from err
