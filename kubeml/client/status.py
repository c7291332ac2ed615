"""A job as it stands now: what its live state says, and its records once it has ended."""

from collections.abc import Callable
from functools import cached_property, partial

from brokers.pool.live_job import LiveJob
from brokers.rounds.head import Head
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.store import RoundStore
from kubeml.backends import Backends
from kubeml.jobs.results import JobStatus
from kubeml.jobs.spec import JobSpec, State
from kubeml.jobs.summary import ended_status
from kubeml.pool.pending import Staffing, why_pending
from kubeml.pool.staffing import read_staffing


class StatusReader:
    """Reads one job's status, again and again."""

    def __init__(self, job_id: str, backends: Backends) -> None:
        self._id, self._backends = job_id, backends
        self._store = RoundStore(backends.redis, job_id, where=backends.where)
        self._records = backends.records

    @cached_property
    def spec(self) -> JobSpec:
        """What was asked for.

        Raises:
            JobNotFound: There is no such job.
        """
        return self._records.spec(self._id)

    def read(self, pool: Callable[[], Staffing] | None = None) -> JobStatus:
        """The job as it stands now; see ``Job.status``."""
        snap = self._store.snapshot()
        end = None
        if not snap.head or State(snap.state).is_final:
            end = self._records.end(self._id)
        if end is not None:
            return ended_status(self.spec, end, self._records.last_row(self._id, end.epoch))
        epoch = snap.head.epoch
        waiting = len(snap.tickets)
        pending = self._why_pending(snap, pool)
        return JobStatus(
            id=self._id,
            state=State(snap.state) if snap.head else State.PLAN,
            reason=pending or _why_waiting(snap.head, waiting, snap.num_live),
            spec=self.spec,
            epoch=epoch,
            round=snap.head.round,
            rounds=snap.head.rounds,
            version=snap.head.version,
            parallelism=snap.head.slots,
            num_workers=snap.num_live,
            waiting=waiting,
            floor=snap.head.floor,
            ceiling=snap.head.ceiling,
            max_workers=snap.head.max_workers,
            last=self._records.last_row(self._id, epoch),
            is_pending=bool(pending),
        )

    def why_pending(self) -> str:
        """Why no worker can serve the job now; "" if one does, or is about to."""
        return self._why_pending(self._store.snapshot(), None)

    def _why_pending(self, snap: Snapshot, pool: Callable[[], Staffing] | None) -> str:
        job = LiveJob(
            id=self._id,
            state=snap.state,
            device=snap.head.device,
            want=snap.head.want,
            contributed=len(snap.contributions),
            num_live=snap.num_live,
            is_stopping=snap.head.stop,
        )
        return why_pending(job, pool or partial(read_staffing, self._backends))


def _why_waiting(head: Head, waiting: int, num_live: int) -> str:
    if head.reason:
        return head.reason
    if head.stop:
        return "stopping"
    if waiting and not num_live:
        return f"waiting for a free {head.device} worker"
    return ""
