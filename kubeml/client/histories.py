"""Lists of jobs: those of the live state, and all that there is a record of; and forgetting them.

Of jobs that have ended the summaries in one listing tell enough; each other one is looked at.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from typing import TypeVar

from brokers.rounds.index import ended_jobs, live_jobs
from brokers.rounds.store import RoundStore
from kubeml.backends import Backends
from kubeml.client.status import StatusReader
from kubeml.errors import BackendRefused, Conflict, JobNotFound
from kubeml.jobs.records import PARALLEL_READS
from kubeml.jobs.results import JobStatus
from kubeml.pool.pending import Staffing
from kubeml.pool.staffing import read_staffing

T = TypeVar("T")

#: For fewer ended jobs it is quicker to look at each than to list all summaries.
_INDEX_FROM = 100


class Histories:
    """The jobs of a pool and its bucket; see the methods of ``Client``."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def live(self) -> list[JobStatus]:
        """The jobs of the live state: those under way, and those that ended within the hour."""
        redis, where = self._backends.redis, self._backends.where
        alive = live_jobs(redis, where=where)
        ended = ended_jobs(redis, where=where)
        ids = list(dict.fromkeys([*alive, *ended]))
        finished = self._backends.records.finished() if len(ended) > _INDEX_FROM else {}
        finished |= dict.fromkeys(alive)
        return sorted(self._statuses(ids, finished), key=lambda s: s.spec.created_at)

    def prune_live(self) -> list[str]:
        """Forget ended jobs in the live state."""
        ids = ended_jobs(self._backends.redis, where=self._backends.where)
        for job_id in ids:
            self._forget(job_id)
        return ids

    def all(self) -> list[JobStatus]:
        """Every job there is a record of, newest first."""
        records = self._backends.records
        ids, finished = records.all_ids(), records.finished()
        found = self._statuses(ids, finished)
        unlisted = [s for s in found if s.id not in finished]
        with suppress(BackendRefused):  # whoever may only read reads all records again next time
            _each([s.id for s in unlisted if s.end], records.summarise)
            # Of a bucket that was copied while they trained.
            _each([s.id for s in unlisted if not s.end], records.put_back)
        return sorted(found, key=lambda s: s.spec.created_at, reverse=True)

    def delete(self, job_id: str) -> None:
        """Remove an ended job's history, checkpoints and records."""
        reader = StatusReader(job_id, self._backends)
        _ = reader.spec
        if not reader.read().state.is_final:
            raise Conflict(
                what=f"job {job_id} is running", hint=f"stop it: kubeml task stop --id {job_id}"
            )
        self._delete(job_id)

    def prune(self) -> list[str]:
        """Remove the histories of all ended jobs, and return their ids."""
        ended = [s.id for s in self.all() if s.state.is_final]
        return [job_id for job_id in _each(ended, self._prune) if job_id]

    def _statuses(
        self, ids: list[str], finished: Mapping[str, JobStatus | None]
    ) -> list[JobStatus]:
        """What ``finished`` says of these jobs; all others are looked at one by one."""
        pool = cache(partial(read_staffing, self._backends))  # once, and only if a job waits
        known = [status for job_id in ids if (status := finished.get(job_id)) is not None]
        unknown = [job_id for job_id in ids if finished.get(job_id) is None]
        found = _each(unknown, partial(self._look, pool=pool))
        return known + [status for status in found if status is not None]

    def _look(self, job_id: str, pool: Callable[[], Staffing]) -> JobStatus | None:
        try:
            return StatusReader(job_id, self._backends).read(pool)
        except JobNotFound:
            # Deleted meanwhile, or a submission that died half-way.
            return None

    def _prune(self, job_id: str) -> str:
        if self._backends.records.end(job_id) is None:
            # Deleted or resumed by somebody else meanwhile.
            return ""
        self._delete(job_id)
        return job_id

    def _delete(self, job_id: str) -> None:
        self._forget(job_id)
        self._backends.records.delete(job_id)

    def _forget(self, job_id: str) -> None:
        RoundStore(self._backends.redis, job_id, where=self._backends.where).forget()


def _each(ids: list[str], look: Callable[[str], T]) -> list[T]:
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(look, ids))
