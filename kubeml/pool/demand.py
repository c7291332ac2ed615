"""How many workers each queue wants, worked out from the live jobs. Pure.

Autoscalers, metrics and ``kubeml status`` go by it. The length of a Redis list would not do: after
its first burst a job sends one dispatch at a time, and a worker that serves a job has taken its
message off the list long ago.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from brokers.messages.queues import DEVICES, train_queue
from brokers.pool.live_job import LiveJob, Workload
from brokers.pool.node import Node
from kubeml.jobs.spec import State

#: The metric that tells a cluster's autoscaler how many workers to keep.
WANTED_METRIC = "kubeml_queue_wanted_workers"

#: States in which a job may want workers. A job in a state of a newer version wants none of ours.
LIVE = frozenset(state for state in State if not state.is_final)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDemand:
    """What waits and what is served in one queue now.

    Attributes:
        queue: The training queue of a kind of worker. Inference requests for such workers are
            counted here too, since the same workers serve them.
        device: The device of its workers.
        queued: Dispatches that no worker has answered yet, and inference requests that wait.
        running: Workers at work for jobs or requests.
        wanted: How many workers could work now, those at work included.
        workers: How many workers there are.
    """

    queue: str
    device: str
    queued: int
    running: int
    wanted: int
    workers: int

    def to_wire(self) -> dict[str, Any]:
        """Return the demand as JSON-able values."""
        return asdict(self)


def wanted_by(job: LiveJob) -> int:
    """Return how many workers a job can use now: one for each slot of the round, up to its own cap.

    Between two rounds or stages that is the number of the epoch's slots: the job will want the
    workers again in a moment, so those that have just contributed must not be sent away.
    """
    state = job.state
    if job.is_stopping or state not in LIVE:
        return 0
    slots = job.slots if state in {State.PLAN, State.END} else job.want
    return slots if job.max_workers is None else min(slots, job.max_workers)


def queue_demands(now: Workload, waiting: Mapping[str, int]) -> list[QueueDemand]:
    """Return the demand of every queue, unwanted queues included.

    Args:
        now: The live jobs, the inference requests, and the processes of the pool.
        waiting: Inference requests in the queues, by device. A client waits for most of them. A
            worker that has a request in hand has taken it off the queue.
    """
    return [_queue_demand(device, now, waiting.get(device, 0)) for device in DEVICES]


def wanted_workers(demands: Sequence[QueueDemand]) -> dict[str, int]:
    """Return the values of ``kubeml_queue_wanted_workers``: label ``queue`` to workers wanted."""
    return {demand.queue: demand.wanted for demand in demands}


def capacity(nodes: Sequence[Node], device: str) -> int:
    """Return how many workers of a kind a pool has, or would start if they were wanted."""
    return sum(
        node.room if node.role == "supervisor" else node.role == "worker"
        for node in nodes
        if node.device == device
    )


def _queue_demand(device: str, now: Workload, waiting: int) -> QueueDemand:
    jobs = [job for job in now.jobs if job.device == device]
    requests = [request for request in now.requests if request.device == device]
    in_hand = sum(request.worker != "" for request in requests)
    # A request that left the queue, and that no worker has confirmed yet, counts as waiting.
    waiting = max(waiting, len(requests) - in_hand)
    return QueueDemand(
        queue=train_queue(device),
        device=device,
        queued=sum(job.tickets for job in jobs) + waiting,
        running=sum(job.num_live for job in jobs) + in_hand,
        wanted=sum(map(wanted_by, jobs)) + waiting + in_hand,
        workers=sum(node.role == "worker" and node.device == device for node in now.nodes),
    )
