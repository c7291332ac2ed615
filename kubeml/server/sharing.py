"""Shares a pool among jobs: each job's parameter server sets how many workers its job is to have.

All of them read the same numbers and compute the same shares (``kubeml.pool.fair_share``), so none
has to be in charge.
"""

import threading
import time
from typing import TYPE_CHECKING

from brokers.pool.live_job import LiveJob, Workload
from brokers.pool.workload import read_workload
from brokers.rounds.keeping import Keeping
from kubeml.pool.demand import capacity, wanted_by
from kubeml.pool.fair_share import Allotment, Claim, allotment

if TYPE_CHECKING:
    from redis import Redis

#: How often the pool is read, for all jobs of a process together.
_LOOK_EVERY_S = 0.4


class Sharing:
    """Knows all jobs of the pool, for the keepers of one process. Thread-safe."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._lock = threading.Lock()
        self._read_at = -_LOOK_EVERY_S
        self._workload = Workload(jobs=(), nodes=())

    def update(self, store: Keeping, gen: str) -> None:
        """Work out what a job is to have of the workers, and set it if it has changed."""
        workload = self._current()
        job = next((job for job in workload.jobs if job.id == store.job_id), None)
        if job is None:
            return
        peers = [peer for peer in workload.jobs if peer.device == job.device]
        there = capacity(workload.nodes, job.device)
        if not there:
            return  # there are no workers to share
        given = allotment(_claim(job), [_claim(peer) for peer in peers], there)
        if given != Allotment(most=job.allot, credit_ms=job.credit_ms, lean=job.lean):
            # The books end when the pool was read: a later end would leave out the time between.
            store.share(
                gen,
                most=given.most,
                credit_ms=given.credit_ms,
                lean=given.lean,
                at_ms=workload.at_ms,
                used_ms=job.used_ms,
            )

    def _current(self) -> Workload:
        """Return the pool's jobs and nodes, as they were a moment ago."""
        with self._lock:
            if time.monotonic() - self._read_at >= _LOOK_EVERY_S:
                self._workload = read_workload(self._client)
                self._read_at = time.monotonic()
            return self._workload


def _claim(job: LiveJob) -> Claim:
    return Claim(
        id=job.id,
        weight=job.weight,
        demand=wanted_by(job),
        live=job.num_live,
        tickets=job.tickets,
        credit_ms=job.credit_ms,
        lean=job.lean,
        elapsed_ms=job.unbooked_ms,
        used_ms=job.unbooked_used_ms,
    )
