"""Makes clients of Redis, in one way for all, with time-outs that never let them hang.

Make clients after a fork, never before: a socket shared by two processes mixes their replies.
"""

from typing import TYPE_CHECKING, Any

from brokers.errors import InvalidSetting
from brokers.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

#: Blocking waits on the server stay below the socket time-out, and below redis-py's own limit.
MAX_BLOCK_MS = 2000


def state_client(settings: Settings) -> "Redis":
    """Return a client of the state server; replies are bytes."""
    return _client("state_url", settings)


def broker_client(settings: Settings) -> "Redis":
    """Return a client of the broker's server for queue lengths, which must not take long."""
    return _client("broker_url", settings, socket_timeout=2, retries=1)


def watch_client(settings: Settings) -> "Redis":
    """Return a client of the state server for looking on, which must not take long."""
    return _client("state_url", settings, socket_timeout=2, retries=1)


def quick_client(settings: Settings, name: str) -> "Redis":
    """Return a client of ``state_url`` or ``broker_url`` that gives up after 5 s at most."""
    return _client(name, settings, socket_timeout=2, retries=0)


def stream_entries(answer: Any) -> list[tuple[bytes, Any]]:
    """Return the (id, fields) of an XREAD of one stream, in whichever protocol they came."""
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
    # Only a network connection can be kept alive.
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
        # Only redis-py reads, and checks, what stands behind the URL's question mark.
        raise InvalidSetting(setting=name, fault=str(err)) from err
