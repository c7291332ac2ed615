"""Who is there: every worker, parameter server and control worker says so every few seconds."""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from brokers.errors import KubemlError, redis_errors
from brokers.wire import as_text

if TYPE_CHECKING:
    from redis import Redis

NODES_KEY = "kubeml:nodes"
BEAT_EVERY_S = 2.0
ALIVE_FOR_S = 10.0
_FORGET_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One process of the pool: name, role (ps, control, worker), pid, device, host, last beat.

    ``gpu`` is the one that the worker is pinned to, as ``CUDA_VISIBLE_DEVICES`` names it, and
    ``gpu_name`` its model. ``cores`` and ``memory_bytes`` are what the process may use of its
    machine (0: it did not say). ``room`` is how many more workers of this device a supervisor
    would start if they were wanted.
    """

    name: str
    role: str
    pid: int
    device: str
    host: str
    at: float
    gpu: str = ""
    gpu_name: str = ""
    cores: int = 0
    memory_bytes: int = 0
    room: int = 0

    def is_alive(self, now: float) -> bool:
        """Whether it was heard of lately; ``now`` in the server's Unix seconds."""
        return abs(now - self.at) < ALIVE_FOR_S


_FIELDS = {field.name for field in fields(Node)} - {"name"}


def announce(
    client: "Redis",
    name: str,
    role: str,
    *,
    device: str = "cpu",
    gpu: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Say that this process is there (by the server's clock, so that clocks need not agree).

    Args:
        client: Of the state server.
        name: Its name, unique in the pool.
        role: ``ps``, ``control``, ``worker`` or ``supervisor``.
        device: See ``Node``.
        gpu: See ``Node``.
        facts: Further fields of ``Node``.
    """
    with redis_errors("the state server"):
        clock: Any = client.time()
        value = {
            "role": role,
            "pid": os.getpid(),
            "device": device,
            "host": socket.gethostname(),
            "at": server_time(clock),
        }
        if gpu:
            value["gpu"] = gpu
        value |= facts or {}
        client.hset(NODES_KEY, name, json.dumps(value))


def withdraw(client: "Redis", name: str) -> None:
    """Say that this process leaves."""
    with redis_errors("the state server"):
        client.hdel(NODES_KEY, name)


def alive_nodes(client: "Redis", *, role: str = "", device: str = "") -> list[Node]:
    """The nodes heard of lately, by name; those long silent are forgotten on the way."""
    with redis_errors("the state server"):
        clock: Any = client.time()
        rows: Mapping[bytes, bytes] = client.hgetall(NODES_KEY)  # type: ignore[assignment]
        now = server_time(clock)
        nodes = [node for name, text in rows.items() if (node := _node(as_text(name), text))]
        silent = [node.name for node in nodes if abs(now - node.at) > _FORGET_AFTER_S]
        if silent:
            client.hdel(NODES_KEY, *silent)
    return [
        node
        for node in alive_among(rows, now)
        if role in {"", node.role} and device in {"", node.device}
    ]


def alive_among(rows: Mapping[bytes, bytes], now: float) -> list[Node]:
    """The nodes in the table's rows that were heard of lately, by name."""
    nodes = [node for name, text in rows.items() if (node := _node(as_text(name), text))]
    return sorted((node for node in nodes if node.is_alive(now)), key=lambda node: node.name)


def silent_among(rows: Mapping[bytes, bytes], now: float) -> list[Node]:
    """Those that went without a goodbye within the last hour, and have not come back."""
    nodes = [node for name, text in rows.items() if (node := _node(as_text(name), text))]
    return [node for node in nodes if ALIVE_FOR_S <= abs(now - node.at) <= _FORGET_AFTER_S]


def server_time(clock: Any) -> float:
    """What TIME answers, in Unix seconds."""
    return float(clock[0] + clock[1] / 1e6)


def _node(name: str, text: bytes) -> Node | None:
    """A row of the table, without what a newer version added; None if nobody can read it."""
    try:
        row = json.loads(text)
        return Node(name=name, **{key: row[key] for key in row if key in _FIELDS})
    except (TypeError, ValueError):
        return None


class Heart(threading.Thread):
    """Announces this process from a daemon thread until it is stopped."""

    def __init__(
        self,
        client: "Redis",
        name: str,
        role: str,
        *,
        device: str = "cpu",
        gpu: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name="kubeml-heart", daemon=True)
        self._client, self._node, self._role = client, name, role
        self._device, self._gpu, self._facts = device, gpu, facts
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Announce now and every two seconds; a server that is away is asked again."""
        while not self._stop_asked.is_set():
            started = time.monotonic()
            try:
                announce(
                    self._client, self._node, self._role,
                    device=self._device, gpu=self._gpu, facts=self._facts,
                )  # fmt: skip
            except KubemlError:
                # The loop itself is the retry; the servers' own clients report the outage.
                started = time.monotonic()
            self._stop_asked.wait(max(0.0, BEAT_EVERY_S - (time.monotonic() - started)))

    def stop(self) -> None:
        """Stop announcing and say goodbye, as far as the server still answers."""
        self._stop_asked.set()
        try:
            withdraw(self._client, self._node)
        except KubemlError:
            return
