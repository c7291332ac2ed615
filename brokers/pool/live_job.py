"""What a pool has to do, and who is there for it, at one moment. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from brokers.pool.node import Node
from brokers.pool.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveJob:
    """A job that has not ended, with what decides its demand for workers.

    Attributes:
        id: Job id.
        state: Its state; "" while its live state is lost.
        device: The device that its workers must have.
        want: Slots of the round under way.
        slots: Slots N of the epoch.
        contributed: Slots of the round that are handed in.
        num_live: Participants seen within a lease.
        tickets: Dispatches that no worker has answered yet.
        max_workers: The most workers at a time; None if there is no such cap.
        is_stopping: Whether it was asked to end.
        weight: Its weight among the jobs of the pool.
        allot: How many workers it is to have for now; None: any number.
        credit_ms, lean: The books of its share; see ``kubeml.pool.fair_share``.
        used_ms: The worker-milliseconds it had so far: a worker counts while it takes part.
        unbooked_ms: Time since these books were made.
        unbooked_used_ms: The worker-milliseconds it had since then.
    """

    id: str
    state: str
    device: str = "cpu"
    want: int = 0
    slots: int = 0
    contributed: int = 0
    num_live: int = 0
    tickets: int = 0
    max_workers: int | None = None
    is_stopping: bool = False
    weight: int = 1
    allot: int | None = None
    credit_ms: float = 0.0
    lean: int = 0
    used_ms: int = 0
    unbooked_ms: float = 0.0
    unbooked_used_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What there is to do, and which processes are there.

    Attributes:
        jobs: The live jobs.
        nodes: The processes heard of lately.
        silent: The processes that left without a goodbye.
        requests: The inference requests that a client waits for.
        at_ms: When it was read, by the server's clock.
    """

    jobs: Sequence[LiveJob]
    nodes: Sequence[Node]
    silent: Sequence[Node] = ()
    requests: Sequence[Request] = ()
    at_ms: float = 0.0
