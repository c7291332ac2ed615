"""Which processes are there: each of the pool's processes announces itself every few seconds."""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brokers.errors import KubemlError
from brokers.pool.node import FORGET_AFTER_S, Node, alive_among, read_node, server_time
from brokers.state.error_mapping import redis_errors
from brokers.wire import as_text

if TYPE_CHECKING:
    from redis import Redis

NODES_KEY = "kubeml:nodes"
BEAT_EVERY_S = 2.0


def announce(
    client: "Redis",
    name: str,
    role: str,
    *,
    device: str = "cpu",
    gpu: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Say that this process is there, by the server's clock, so that clocks need not agree.

    Args:
        client: A client of the state server.
        name: The process's name, unique in the pool.
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


def alive_nodes(client: "Redis", *, role: str = "") -> list[Node]:
    """Return the nodes heard of lately, by name, and forget nodes that were silent for long."""
    with redis_errors("the state server"):
        clock: Any = client.time()
        rows: Mapping[bytes, bytes] = client.hgetall(NODES_KEY)  # type: ignore[assignment]
        now = server_time(clock)
        nodes = [node for name, text in rows.items() if (node := read_node(as_text(name), text))]
        silent = [node.name for node in nodes if abs(now - node.at) > FORGET_AFTER_S]
        if silent:
            client.hdel(NODES_KEY, *silent)
    return [node for node in alive_among(rows, now) if role in {"", node.role}]


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
        """Announce now and every two seconds; if the server is away, try again."""
        while not self._stop_asked.is_set():
            started = time.monotonic()
            try:
                announce(
                    self._client,
                    self._node,
                    self._role,
                    device=self._device,
                    gpu=self._gpu,
                    facts=self._facts,
                )
            except KubemlError:
                # The loop itself retries; the process's other clients report the outage.
                started = time.monotonic()
            self._stop_asked.wait(max(0.0, BEAT_EVERY_S - (time.monotonic() - started)))

    def stop(self) -> None:
        """Stop announcing, and say goodbye if the server still answers."""
        self._stop_asked.set()
        try:
            withdraw(self._client, self._node)
        except KubemlError:
            return
