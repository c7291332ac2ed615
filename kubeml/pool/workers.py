"""What each worker of a pool does, by the leases and contributions of the live jobs. Pure.

``picture`` puts it into the ``PoolView``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from brokers.pool.job_reading import JobReading, PoolReading, Record, count
from kubeml.jobs.round_times import RoundClock
from kubeml.jobs.spec import STAGE_OF, State
from kubeml.pool.view import PoolView, PoolWorker


def pool_workers(reading: PoolReading, earlier: PoolView | None) -> list[PoolWorker]:
    """Return the workers that are announced, hold a slot or answer a request, by device and name.

    Args:
        reading: What the servers told.
        earlier: The view before this one. Workers that handed in nothing since keep its speeds.
    """
    workers = {
        node.name: PoolWorker(name=node.name, host=node.host, device=node.device, gpu=node.gpu)
        for node in reading.nodes
        if node.role == "worker"
    }
    now_ms = reading.now_ms
    waiting = [worker for job in reading.jobs for worker in _waiting(job, now_ms)]
    answering = [
        PoolWorker(name=request.worker, host="", device=request.device, gpu="", stage="infer")
        for request in reading.requests
        if request.worker
    ]
    at_work = [worker for job in reading.jobs for worker in _at_work(job, now_ms)]
    # A worker's last entry counts: one that waited for a job may serve another job by now.
    at_work.sort(key=lambda worker: -(worker.for_s or 0.0))
    for worker in (*waiting, *answering, *at_work):
        known = workers.get(worker.name, worker)
        workers[worker.name] = replace(
            worker,
            host=known.host,
            device=known.device,
            gpu=known.gpu,
            samples_per_s=worker.samples_per_s or _earlier_speed(earlier, worker),
        )
    return sorted(workers.values(), key=lambda worker: (worker.device, _natural(worker.name)))


def _at_work(job: JobReading, now_ms: float) -> Iterator[PoolWorker]:
    """Yield the workers that hold a slot by a lease that has not run out."""
    stage, speeds = STAGE_OF.get(job.state), _speeds(job)
    for slot, lease in job.leases.items():
        if stage and lease.get("t") and lease.get("w") and now_ms <= lease["dl"]:
            yield replace(
                _participant(lease["w"], job, stage, speeds),
                slot=slot,
                attempt=int(lease["n"]),
                for_s=max(0.0, now_ms - lease["at"]) / 1000,
            )


def _waiting(job: JobReading, now_ms: float) -> Iterator[PoolWorker]:
    """Yield participants still there that handed in something for this round or the last one."""
    speeds, live = _speeds(job), set(job.live_tokens(now_ms))
    for entry in job.merged:
        if entry["token"] in live:
            yield _participant(entry["worker"], job, "wait", speeds)
    for slot, entry in job.contributions.items():
        if entry["token"] in live:
            came_ms = job.leases.get(slot, {}).get("i")
            waits_ms = None if came_ms is None else now_ms - job.head.opened - came_ms
            yield replace(
                _participant(entry["worker"], job, "wait", speeds),
                for_s=None if waits_ms is None else max(0.0, waits_ms) / 1000,
            )


def _participant(name: str, job: JobReading, stage: str, speeds: Mapping[str, float]) -> PoolWorker:
    return PoolWorker(
        name=name,
        host="",
        device=job.device,
        gpu="",
        stage=stage,
        job=job.id,
        epoch=job.head.epoch,
        round=job.head.round if job.state == State.RUN else None,
        samples_per_s=speeds.get(name),
    )


def _speeds(job: JobReading) -> dict[str, float]:
    """Return each worker's rows per second, from this round, or else from the one before."""
    if job.state == State.INIT:
        return {}
    return _mean_speeds(_last_round(job)) | _mean_speeds(_this_round(job))


def _this_round(job: JobReading) -> Iterator[tuple[Record, int, float]]:
    for slot, entry in job.contributions.items():
        lease = job.leases.get(slot, {})
        if "a" in lease and "i" in lease:
            yield entry, count(entry.get("num_samples")), (lease["i"] - lease["a"]) / 1000


def _last_round(job: JobReading) -> Iterator[tuple[Record, int, float]]:
    clock = RoundClock.from_wire(job.timing)
    if clock is None or len(clock.slots) != len(job.merged):
        return
    for entry, (_, taken, came) in zip(job.merged, clock.slots, strict=True):
        yield entry, count(entry.get("samples")), came - taken


def _mean_speeds(handed_in: Iterator[tuple[Record, int, float]]) -> dict[str, float]:
    rows: dict[str, int] = {}
    held_s: dict[str, float] = {}
    for entry, samples, seconds in handed_in:
        name = entry["worker"]
        # Training ahead, before the slot was given out, took time, too (``--overlap``).
        ahead_s = (entry.get("timings") or {}).get("ahead") or 0.0
        rows[name] = rows.get(name, 0) + samples
        held_s[name] = held_s.get(name, 0.0) + seconds + ahead_s
    return {name: rows[name] / held_s[name] for name in rows if held_s[name] > 0}


def _earlier_speed(earlier: PoolView | None, worker: PoolWorker) -> float | None:
    for before in earlier.workers if earlier is not None else []:
        if (before.name, before.job) == (worker.name, worker.job):
            return before.samples_per_s
    return None


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which worker-2 comes before worker-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
