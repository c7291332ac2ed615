"""Notes what was refused at a door, for those who look after the pool: a log line and a count."""

import logging
from typing import TYPE_CHECKING, Any

from brokers.errors import KubemlError
from brokers.state.error_mapping import redis_errors

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

REFUSED_KEY = "kubeml:refused"


def note_refused(client: "Redis", door: str, why: object) -> None:
    """Log a refusal and count it. If the server is away, only the count is lost.

    Args:
        client: A client of the state server.
        door: Where it was refused: ``message``, ``hint``, ``task`` or ``contribution``.
        why: The reason, for the log.
    """
    logger.warning("%s refused: %s", door, str(why)[:500])
    try:
        with redis_errors("the state server"):
            client.hincrby(REFUSED_KEY, door, 1)
    except KubemlError as err:
        logger.warning("not counted: %s", err)


def refusals(client: "Redis") -> dict[str, int]:
    """Return each door, to how often something was refused there."""
    with redis_errors("the state server"):
        counts: Any = client.hgetall(REFUSED_KEY)
    return {door.decode(): int(count) for door, count in sorted(counts.items())}
