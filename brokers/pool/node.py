"""A process of the pool, as its row in the table of nodes has it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from brokers.wire import as_text

ALIVE_FOR_S = 10.0
FORGET_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One process of the pool: name, role (ps, control, worker), pid, device, host, last beat.

    ``gpu`` is the GPU that the worker is pinned to, as ``CUDA_VISIBLE_DEVICES`` names it, and
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
        """Return whether it was heard of lately; ``now`` is in the server's Unix seconds."""
        return abs(now - self.at) < ALIVE_FOR_S


_FIELDS = {field.name for field in fields(Node)} - {"name"}


def alive_among(rows: Mapping[bytes, bytes], now: float) -> list[Node]:
    """Return the nodes in the table's rows that were heard of lately, by name."""
    nodes = [node for name, text in rows.items() if (node := read_node(as_text(name), text))]
    return sorted((node for node in nodes if node.is_alive(now)), key=lambda node: node.name)


def silent_among(rows: Mapping[bytes, bytes], now: float) -> list[Node]:
    """Return those that left without a goodbye in the last hour, and have not come back."""
    nodes = [node for name, text in rows.items() if (node := read_node(as_text(name), text))]
    return [node for node in nodes if ALIVE_FOR_S <= abs(now - node.at) <= FORGET_AFTER_S]


def server_time(clock: Any) -> float:
    """Return the answer of TIME in Unix seconds."""
    return float(clock[0] + clock[1] / 1e6)


def read_node(name: str, text: bytes) -> Node | None:
    """Read a row of the table, without what a newer version added; None if it is unreadable."""
    try:
        row = json.loads(text)
        return Node(name=name, **{key: row[key] for key in row if key in _FIELDS})
    except (TypeError, ValueError):
        return None
