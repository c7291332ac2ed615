"""Makes the picture of a pool, ``PoolView``, from what the servers tell about it. Pure.

All times are by the state server's clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from brokers.pool.job_reading import JobReading, PoolReading
from brokers.pool.live_job import LiveJob
from brokers.pool.node import Node
from kubeml.jobs.plan import EpochPlan
from kubeml.jobs.spec import State
from kubeml.pool.pending import Staffing, why_pending
from kubeml.pool.speed import pause_s, samples_per_s, time_left_s
from kubeml.pool.view import PoolJob, PoolQueue, PoolView, PoolWorker
from kubeml.pool.workers import pool_workers

#: Between two rounds a job keeps its speed for this long; after that it counts as not training.
_PAUSE_S = 5.0

_FINAL = {str(state) for state in State if state.is_final}


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """What never changes of a job: what was asked for, and the size of its training set."""

    function: str
    epochs: int
    batch_size: int
    k: int
    num_rows: int
    created_at: float


def view_pool(
    reading: PoolReading, facts: Mapping[str, JobFacts], *, earlier: PoolView | None = None
) -> PoolView:
    """Make the picture.

    Args:
        reading: What the servers told.
        facts: What is known of the jobs, by id.
        earlier: The view before this one. Workers that handed in nothing since keep its speeds.
    """
    workers = pool_workers(reading, earlier)
    jobs = sorted(
        reading.jobs, key=lambda job: (facts[job.id].created_at if job.id in facts else 0, job.id)
    )
    live = {job.id: _live_job(job, reading.now_ms) for job in jobs}
    staffing = Staffing.of(list(live.values()), reading.nodes)
    return PoolView(
        at=reading.now_ms / 1000,
        jobs=[
            replace(
                _job(job, facts.get(job.id), workers, reading.now_ms),
                reason=why_pending(live[job.id], lambda: staffing),
            )
            for job in jobs
        ],
        workers=workers,
        queues=[
            PoolQueue(name=name, messages=messages, workers=_servers_of(name, reading.nodes))
            for name, messages in reading.queues.items()
        ],
    )


def _live_job(job: JobReading, now_ms: float) -> LiveJob:
    return LiveJob(
        id=job.id,
        state=job.state,
        device=job.device,
        want=job.head.want,
        contributed=len(job.contributions),
        num_live=len(job.live_tokens(now_ms)),
        is_stopping=job.head.stop,
    )


def _job(
    job: JobReading, facts: JobFacts | None, workers: Sequence[PoolWorker], now_ms: float
) -> PoolJob:
    is_training = job.state == State.RUN
    pace = samples_per_s(
        job.events,
        open_s=_seconds_since(job.head.opened, now_ms) if is_training else 0.0,
        handed_in=job.num_samples if is_training else 0,
    )
    is_paused = not is_training and _seconds_since(job.head.since, now_ms) > _PAUSE_S
    left = _samples_left(job, facts) if facts else None
    num_participants = len(job.live_tokens(now_ms))
    capacity = sum(1 for worker in workers if worker.device == job.device)
    return PoolJob(
        id=job.id,
        state=job.state,
        function=facts.function if facts else "",
        device=job.device,
        epoch=job.head.epoch,
        epochs=facts.epochs if facts else 0,
        round=job.head.round,
        rounds=job.head.rounds,
        progress=_progress(job, left, facts),
        slots=job.head.slots,
        workers=num_participants,
        share=num_participants / capacity if capacity else None,
        samples_per_s=None if is_paused else pace,
        epoch_left_s=time_left_s(left, pace) if is_training and left is not None else None,
        left_s=_job_left_s(job, facts, left, pace),
        waiting=len(job.tickets),
        oldest_wait_s=max(0.0, now_ms - min(job.tickets)) / 1000 if job.tickets else None,
    )


def _samples_left(job: JobReading, facts: JobFacts) -> int:
    """Return how many rows of the epoch under way are still to be handed in."""
    if job.state != State.RUN:
        return 0
    plan = EpochPlan(
        seed=0,
        epoch=1,
        shard_rows=(facts.num_rows,),
        num_slots=max(1, job.head.slots),
        k=facts.k,
        batch_size=facts.batch_size,
    )
    done = plan.num_samples_before(job.head.round) + job.num_samples
    return max(0, facts.num_rows - done)


def _job_left_s(
    job: JobReading, facts: JobFacts | None, left: int | None, pace: float | None
) -> float | None:
    if facts is None or left is None:
        return None
    epochs = 0 if job.state in _FINAL else max(0, facts.epochs - job.head.epoch)
    return time_left_s(
        left + epochs * facts.num_rows, pace, pauses=epochs, pause_s=pause_s(job.events)
    )


def _progress(job: JobReading, left: int | None, facts: JobFacts | None) -> float | None:
    if facts is None or left is None:
        return None
    return 1 - left / facts.num_rows if job.head.epoch else 0.0


def _seconds_since(at_ms: float, now_ms: float) -> float:
    """Seconds since a time that stands in the head; 0 if it does not."""
    return max(0.0, now_ms - at_ms) / 1000 if at_ms else 0.0


def _servers_of(queue: str, nodes: Sequence[Node]) -> int:
    """Return how many live processes serve a queue, by its name: ``kubeml.KIND[.DEVICE]``."""
    _, kind, *device = queue.split(".")
    role = kind if kind in {"ps", "control"} else "worker"
    return sum(1 for node in nodes if node.role == role and (not device or [node.device] == device))
