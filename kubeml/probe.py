"""Whether the processes of this machine are alive and ready, for the probes of their containers.

Alive is who makes progress: its main loop went round lately (``brokers.progress``). Ready is who is
alive, is announced to the pool, and whose servers answer. Imports neither torch nor boto3.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from brokers.connections import watch_client
from brokers.errors import BackendUnreachable, redis_errors
from brokers.nodes import ALIVE_FOR_S, NODES_KEY, server_time
from brokers.progress import Sign, signs
from brokers.settings import Settings, mask_url
from kubeml.errors import KubemlError

ROLES = ("worker", "ps", "control", "flower")

_ANSWER_WITHIN_S = 2.0


@dataclass(eq=False, kw_only=True)
class Unwell(KubemlError):
    """A process is stuck, or not there, or not ready."""

    what: str
    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return self.what


def check_alive(settings: Settings, role: str, *, within_s: float) -> list[Sign]:
    """Return what the role's processes of this machine have noted.

    Args:
        settings: With the home that they share.
        role: ``worker``, ``ps`` or ``control``; all of them if it is empty.
        within_s: Each has to have made progress in this time.

    Raises:
        Unwell: There is none, or one has not.
    """
    found = signs(settings.home, role or "*")
    if not found:
        raise Unwell(
            what=f"no {role or 'process'} is at work with KUBEML_HOME {settings.home}",
            hint="it may still be starting; a probe needs the process's own KUBEML_HOME",
        )
    for sign in found:
        if sign.age_s > within_s:
            raise Unwell(
                what=f"{sign.name} (pid {sign.pid}) has made no progress for {sign.age_s:.0f} s",
                hint="it is stuck: restart it",
            )
    return found


def check_ready(settings: Settings, found: list[Sign]) -> None:
    """Check that these processes are announced to the pool, and that S3 answers.

    Raises:
        Unwell: One is not announced.
        BackendUnreachable, BackendRefused: A server does not answer.
    """
    client = watch_client(settings)
    with redis_errors(mask_url(settings.state_url)):
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.hmget(NODES_KEY, [sign.name for sign in found])
        clock, rows = pipe.execute()
    client.close()
    for sign, row in zip(found, rows, strict=True):
        if row is None or abs(server_time(clock) - _announced_at(row)) > ALIVE_FOR_S:
            raise Unwell(what=f"{sign.name} is not announced to the pool")
    if settings.s3_endpoint_url:
        _answers(settings.s3_endpoint_url, "s3")


def check_flower(port: int) -> None:
    """Check that Flower answers on this machine.

    Raises:
        BackendUnreachable: It does not.
    """
    _answers(f"http://127.0.0.1:{port}/healthcheck", "flower")


def _answers(url: str, backend: str) -> None:
    try:
        with urlopen(url, timeout=_ANSWER_WITHIN_S):  # noqa: S310 - from our own settings
            return
    except HTTPError:
        # Who refuses a question without credentials is there.
        return
    except (URLError, OSError) as err:
        raise BackendUnreachable(backend=backend, where=mask_url(url), detail=str(err)) from err


def _announced_at(row: bytes) -> float:
    try:
        value: Any = json.loads(row)["at"]
        return float(value)
    except (ValueError, KeyError, TypeError):
        return 0.0
