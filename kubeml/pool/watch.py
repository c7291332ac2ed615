"""Looks at the pool again and again, for ``kubeml top`` and the metrics.

The facts of a job that never change are read once.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from brokers.pool.job_reading import JobReading
from brokers.pool.reading import read_pool
from kubeml.backends import Backends
from kubeml.errors import KubemlError
from kubeml.jobs.records import PARALLEL_READS
from kubeml.pool.picture import JobFacts, view_pool
from kubeml.pool.view import PoolView

#: Records that could not be read are left alone for this long.
_RETRY_AFTER_S = 10.0

#: A job's id, and which of its lives: a resumed job may ask for more epochs.
_Key = tuple[str, int]


class PoolWatch:
    """Looks at the pool. Safe to share between threads."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._facts: dict[_Key, JobFacts] = {}
        self._failed_at: dict[_Key, float] = {}
        self._view: PoolView | None = None
        self._lock = threading.Lock()

    def look(self, *, with_queues: bool = True) -> PoolView:
        """Return the pool now.

        Args:
            with_queues: Whether to ask the broker, too.

        Raises:
            BackendUnreachable: Redis does not answer.
        """
        backends = self._backends
        with self._lock:
            reading = read_pool(
                backends.redis,
                backends.broker if with_queues else None,
                where=backends.where,
                broker_where=backends.broker_where,
            )
            facts = self._known([_key(job) for job in reading.jobs if job.head])
            self._view = view_pool(reading, facts, earlier=self._view)
            return self._view

    def _known(self, keys: list[_Key]) -> dict[str, JobFacts]:
        """Return the known facts of these jobs, by id, and forget other jobs."""
        self._facts = {key: facts for key, facts in self._facts.items() if key in keys}
        self._failed_at = {key: at for key, at in self._failed_at.items() if key in keys}
        patience = time.monotonic() - _RETRY_AFTER_S
        new = [
            key
            for key in keys
            if key not in self._facts and self._failed_at.get(key, patience) <= patience
        ]
        if new:
            with ThreadPoolExecutor(PARALLEL_READS) as threads:
                for key, facts in zip(new, threads.map(self._read, new), strict=True):
                    if facts is not None:
                        self._facts[key] = facts
                    else:
                        self._failed_at[key] = time.monotonic()
        return {job_id: facts for (job_id, _), facts in self._facts.items()}

    def _read(self, key: _Key) -> JobFacts | None:
        """Return a job's facts; None if they cannot be had, which the view shows as unknown."""
        try:
            spec = self._backends.records.spec(*key)
            manifest = self._backends.datasets.at(spec.dataset, spec.dataset_version)
        except KubemlError:
            # The job was deleted meanwhile, or S3 is silent: the live state is worth showing alone.
            return None
        return JobFacts(
            function=spec.function,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            k=spec.k,
            num_rows=manifest.train.num_rows,
            created_at=spec.created_at,
        )


def _key(job: JobReading) -> _Key:
    return job.id, job.head.life
