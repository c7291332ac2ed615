"""The index of finished jobs: a summary of each job's last life, in the key of an empty object.

One LIST request reads a thousand of them; see ``summary`` for the keys. The records are the truth:
summaries are written after them and dropped before them, and may be missing or late.
"""

from collections.abc import Container

from brokers.objects.store import ObjectStore
from kubeml.jobs import summary
from kubeml.jobs.results import JobStatus


class FinishedIndex:
    """The summaries of all jobs."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def add(self, job: JobStatus, life: int) -> str:
        """Write the summary of a job whose ``life`` has ended, and return its key."""
        key = summary.to_key(job, life)
        self._objects.put(key, b"")
        return key

    def drop(self, key: str) -> None:
        """Remove one summary."""
        self._objects.delete([key])

    def drop_before(self, job_id: str, life: int) -> None:
        """Remove the summaries of a job's lives before ``life``, and of no later one."""
        there = [info.key for info in self._objects.list(summary.prefix(job_id))]
        entries = {key: summary.from_key(key) for key in there}
        self._objects.delete(key for key, entry in entries.items() if entry and entry[1] < life)

    def drop_all(self, job_id: str) -> None:
        """Remove every summary of a job."""
        self._objects.delete_prefix(summary.prefix(job_id))

    def read(self, *, but: Container[str]) -> dict[str, tuple[int, JobStatus | None]]:
        """Return the last summary of every job that has one.

        Args:
            but: Ids of jobs to leave out.

        Returns:
            The life that ended and its summary, by job id. The summary is None if the records
            must be read. Its reason is ``summary.LEFT_OUT`` if only the record has the reason.
        """
        latest: dict[str, tuple[int, JobStatus | None]] = {}
        for info in self._objects.list(summary.ROOT):
            entry = summary.from_key(info.key)
            if entry is None or entry[0] in but:
                continue
            job_id, life, job = entry
            known, other = latest.get(job_id, (-1, None))
            if life > known:
                latest[job_id] = life, job
            elif life == known and job != other:
                # One of the two is of a deleted job with the same id: it is unknown which one.
                latest[job_id] = life, None
        return latest
