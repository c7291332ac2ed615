"""Whether the processes of this machine are alive and ready, for the probes of their containers.

Alive is who makes progress: its main loop went round lately (``brokers.alive_files``), or
it cannot,
since a server hangs. Ready is who is alive, is announced to the pool, and whose servers answer.
Imports neither torch nor boto3.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import urlopen

from brokers.alive_files import Sign, excuse, signs
from brokers.errors import BackendUnreachable
from brokers.pool.node import ALIVE_FOR_S, server_time
from brokers.pool.presence import NODES_KEY
from brokers.settings import Settings
from brokers.state.connections import quick_client, watch_client
from brokers.state.error_mapping import redis_errors
from brokers.urls import mask_url
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """A process that is alive.

    Attributes:
        sign: What it noted.
        waits_for: Which servers do not answer, which is why it made no progress; empty if it did.
    """

    sign: Sign
    waits_for: str = ""


def check_alive(settings: Settings, role: str, *, within_s: float) -> list[Living]:
    """Return the role's processes of this machine.

    While a server hangs (its connections stay open, and nothing comes) a process may wait for it
    for longer than ``within_s``. A restart would mend nothing and lose what it holds: its time
    begins anew.

    Args:
        settings: With the home that they share.
        role: ``worker``, ``ps`` or ``control``; all of them if it is empty.
        within_s: Each has to have made progress in this time.

    Raises:
        Unwell: There is none, or one has not although all servers answer.
    """
    found = signs(settings.home, role or "*")
    if not found:
        raise Unwell(
            what=f"no {role or 'process'} is at work with KUBEML_HOME {settings.home}",
            hint="it may still be starting; a probe needs the process's own KUBEML_HOME",
        )
    late = [sign for sign in found if sign.age_s > within_s]
    if not late:
        return [Living(sign=sign) for sign in found]
    silent = "; ".join(silent_servers(settings).values())
    if not silent:
        raise Unwell(
            what=f"{late[0].name} (pid {late[0].pid}) has made no progress for "
            f"{late[0].age_s:.0f} s, although its servers answer",
            hint="it is stuck: restart it",
        )
    for sign in late:
        excuse(sign)
    return [Living(sign=sign, waits_for=silent if sign in late else "") for sign in found]


def check_ready(settings: Settings, found: list[Living]) -> None:
    """Check that these processes are announced to the pool, and that S3 answers.

    Raises:
        Unwell: One is not announced.
        BackendUnreachable, BackendRefused: A server does not answer.
    """
    client = watch_client(settings)
    with redis_errors(mask_url(settings.state_url)):
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.hmget(NODES_KEY, [living.sign.name for living in found])
        clock, rows = pipe.execute()
    client.close()
    for living, row in zip(found, rows, strict=True):
        if row is None or abs(server_time(clock) - _announced_at(row)) > ALIVE_FOR_S:
            raise Unwell(what=f"{living.sign.name} is not announced to the pool")
    if settings.s3_endpoint_url:
        _answers(settings.s3_endpoint_url, "s3")


def check_flower(port: int) -> None:
    """Check that Flower answers on this machine.

    Raises:
        BackendUnreachable: It does not.
    """
    _answers(
        f"http://127.0.0.1:{port}/healthcheck", "flower",
        hint="start it with `kubeml flower`; --port says where, if it has another port",
    )  # fmt: skip


def silent_servers(settings: Settings) -> dict[str, str]:
    """What is wrong with each server that does not answer: ``redis``, ``broker``, ``s3``.

    All are asked at the same time; it takes 5 s at most. A broker that is the state server, and an
    S3 without an endpoint of its own, are not asked.
    """
    questions = {"redis": partial(_redis_answers, settings, "state_url")}
    if settings.broker_url != settings.state_url:
        questions["broker"] = partial(_redis_answers, settings, "broker_url")
    if settings.s3_endpoint_url:
        questions["s3"] = partial(_answers, settings.s3_endpoint_url, "s3")
    with ThreadPoolExecutor(len(questions)) as threads:
        silences = threads.map(_silence, questions.values())
        return {name: why for name, why in zip(questions, silences, strict=True) if why}


def _silence(question: Callable[[], None]) -> str:
    try:
        question()
    except BackendUnreachable as err:
        return str(err)
    except KubemlError:
        # Who refuses is there.
        return ""
    return ""


def _redis_answers(settings: Settings, name: str) -> None:
    client = quick_client(settings, name)
    with redis_errors(mask_url(getattr(settings, name))):
        client.ping()
    client.close()


def _answers(url: str, backend: str, *, hint: str = BackendUnreachable.hint) -> None:
    try:
        with urlopen(url, timeout=_ANSWER_WITHIN_S):  # noqa: S310 - from our own settings
            return
    except HTTPError:
        # Who refuses a question without credentials is there.
        return
    except (OSError, HTTPException) as err:
        # Of urlopen's own errors the reason says it; and who speaks no HTTP is somebody else.
        detail = str(getattr(err, "reason", "")) or str(err) or type(err).__name__
        raise BackendUnreachable(
            backend=backend, where=mask_url(url), detail=detail, hint=hint
        ) from err


def _announced_at(row: bytes) -> float:
    try:
        value: Any = json.loads(row)["at"]
        return float(value)
    except (ValueError, KeyError, TypeError):
        return 0.0
