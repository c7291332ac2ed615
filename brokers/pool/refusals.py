"""Counting what was refused at a door: one log line and one count, for people who look after it."""

import logging
from typing import TYPE_CHECKING, Any

from brokers.errors import KubemlError
from brokers.state.error_mapping import redis_errors

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

REFUSED_KEY = "kubeml:refused"


def note_refused(client: "Redis", door: str, why: object) -> None:
    """Log a refusal and count it; an outage costs the count alone.

    Args:
        client: Of the state server.
        door: Where: ``message``, ``hint``, ``task`` or ``contribution``.
        why: For the log.
    """
    logger.warning("%s refused: %s", door, str(why)[:500])
    try:
        with redis_errors("the state server"):
            client.hincrby(REFUSED_KEY, door, 1)
    except KubemlError as err:
        logger.warning("not counted: %s", err)


def refusals(client: "Redis") -> dict[str, int]:
    """Door to how often something was refused there."""
    with redis_errors("the state server"):
        counts: Any = client.hgetall(REFUSED_KEY)
    return {door.decode(): int(count) for door, count in sorted(counts.items())}
