"""The last rows of jobs' histories, kept in memory: an epoch's row never changes."""

from concurrent.futures import ThreadPoolExecutor

from kubeml.job import EpochRow, JobSpec
from kubeml.records import PARALLEL_READS, JobRecords

#: Jobs whose rows are kept; those that were planned longest ago are forgotten first.
_MOST_JOBS = 64


class RecentRows:
    """Reads the last rows of a job, each but once."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        # By the time of submission too: a deleted job's id may be used again.
        self._jobs: dict[tuple[str, float], dict[int, EpochRow]] = {}

    def before(self, spec: JobSpec, epoch: int, *, most: int) -> list[EpochRow]:
        """The rows of the epochs just before one, by epoch, without a gap; at most so many."""
        wanted = range(max(1, epoch - most), epoch)
        known = self._jobs.pop((spec.id, spec.created_at), {})
        missing = [e for e in wanted if e not in known]
        if missing:
            with ThreadPoolExecutor(min(len(missing), PARALLEL_READS)) as pool:
                read = pool.map(lambda e: self._records.row(spec.id, e), missing)
                known |= {e: row for e, row in zip(missing, read, strict=True) if row is not None}
        self._jobs[spec.id, spec.created_at] = {e: known[e] for e in wanted if e in known}
        if len(self._jobs) > _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]
        gap = max((e for e in wanted if e not in known), default=0)
        return [known[e] for e in wanted if e > gap]
