"""Why no worker serves a live job, which readers are shown as PENDING. Pure.

PENDING is no state of the protocol: the round store does not know who else is in the pool.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from brokers.messages.queues import DEVICES
from brokers.pool.live_job import LiveJob
from brokers.pool.node import Node
from kubeml.jobs.spec import State
from kubeml.pool.demand import LIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Staffing:
    """How many processes of each role there are, and how many of them are busy.

    Attributes:
        workers: Number of workers, by device.
        busy: How many of them are at work for jobs, by device.
        room: How many more will be started if they are wanted, by device.
        num_control, num_servers: Number of control workers and of parameter servers.
    """

    workers: Mapping[str, int]
    busy: Mapping[str, int]
    room: Mapping[str, int]
    num_control: int
    num_servers: int

    @classmethod
    def of(cls, jobs: Sequence[LiveJob], nodes: Sequence[Node]) -> Self:
        """Count the live jobs and the processes heard of lately."""
        busy, room = Counter[str](), Counter[str]()
        for job in jobs:
            busy[job.device] += job.num_live
        for node in nodes:
            room[node.device] += node.room
        return cls(
            workers=Counter(node.device for node in nodes if node.role == "worker"),
            busy=busy,
            room=room,
            num_control=sum(node.role == "control" for node in nodes),
            num_servers=sum(node.role == "ps" for node in nodes),
        )


def why_pending(job: LiveJob, ask: Callable[[], Staffing]) -> str:
    """Return why no process works for a job; "" if one does, or is about to.

    Args:
        job: The job.
        ask: Returns who is there. It is called only if the job alone does not tell.
    """
    if job.state not in LIVE or job.is_stopping or job.num_live:
        return ""
    pool = ask()
    if not pool.num_servers:
        return "no parameter server in the pool: start one with kubeml ps"
    if job.state == State.PLAN and not pool.num_control:
        return "no control worker in the pool plans its next epoch: start one with kubeml control"
    if job.state in {State.PLAN, State.END} or job.contributed >= job.want:
        return ""
    return _why_unserved(job.device, pool)


def _why_unserved(device: str, pool: Staffing) -> str:
    there, busy, room = (counts.get(device, 0) for counts in (pool.workers, pool.busy, pool.room))
    if not there:
        return "a worker is being started" if room else _why_nobody(device, pool)
    if there > busy:
        return ""
    if room:
        return f"a worker is being started ({busy} busy with other jobs)"
    return f"waits for a free worker ({busy} busy with other jobs)"


def _why_nobody(device: str, pool: Staffing) -> str:
    others = [
        _count(pool.workers.get(kind, 0), kind)
        + (", more on demand" if pool.room.get(kind) else "")
        for kind in DEVICES
        if pool.workers.get(kind) or pool.room.get(kind)
    ]
    if not others:
        return f"no worker in the pool: start one with kubeml worker --device {device}"
    return f"no {device} worker in the pool ({', '.join(others)})"


def _count(count: int, device: str) -> str:
    return f"{count} {device} {'worker' if count == 1 else 'workers'}"
