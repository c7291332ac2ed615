"""``kubeml probe``: tell a container's probes whether this machine's processes are alive and ready.

A process is alive if its main loop went round lately (``brokers.alive_files``), or if it cannot
because a server hangs. A process is ready if it is alive, is announced to the pool, and all servers
answer. This module imports neither torch nor boto3.
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
    """A process is stuck, missing or not ready."""

    what: str
    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """A process that is alive.

    Attributes:
        sign: The sign of life that it left.
        waits_for: The servers whose silence kept it from making progress; empty if it did.
    """

    sign: Sign
    waits_for: str = ""


def check_alive(settings: Settings, role: str, *, within_s: float) -> list[Living]:
    """Check that the role's processes on this machine are alive, and return them.

    A server may hang: its connections stay open, and nothing comes. A process then may wait for it
    for longer than ``within_s``. A restart would mend nothing and lose what the process holds, so
    the process gets its whole time again.

    Args:
        settings: They name the home that the processes share.
        role: ``worker``, ``ps`` or ``control``; empty: all of them.
        within_s: Each process must have made progress in the last so many seconds.

    Raises:
        Unwell: There is no such process, or one made no progress although all servers answer.
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
        Unwell: A process is not announced.
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
        f"http://127.0.0.1:{port}/healthcheck",
        "flower",
        hint="start it with `kubeml flower`; --port says where, if it has another port",
    )


def silent_servers(settings: Settings) -> dict[str, str]:
    """Return what is wrong with each server that does not answer: ``redis``, ``broker``, ``s3``.

    All are asked at the same time, which takes 5 s at most. The broker is not asked if it is the
    state server, nor is S3 if it has no endpoint of its own.
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
        # A server that refuses us is there.
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
        # A server that refuses a question without credentials is there.
        return
    except (OSError, HTTPException) as err:
        # urlopen's own errors explain themselves in `reason`. A server that does not speak HTTP
        # is not the one that is meant.
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
