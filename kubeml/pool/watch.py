"""Looks at the pool again and again, for ``kubeml top`` and the metrics.

The facts of a job that never change are read once.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from brokers.pool.reading import JobReading, read_pool
from brokers.pool.workload import read_waiting, read_workload
from brokers.state.connections import broker_client
from brokers.urls import mask_url
from kubeml.errors import KubemlError
from kubeml.jobs.records import PARALLEL_READS
from kubeml.pool.demand import QueueDemand, queue_demands
from kubeml.pool.pending import Staffing
from kubeml.pool.picture import JobFacts, view_pool
from kubeml.pool.view import PoolView

if TYPE_CHECKING:
    from kubeml.client.client import Client

#: Records that could not be read are left alone for this long.
_RETRY_AFTER_S = 10.0

#: A job's id, and which of its lives: a resumed job may ask for more epochs.
_Key = tuple[str, int]


class PoolWatch:
    """Looks at the pool through one client. Safe to share between threads."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._broker = broker_client(client.settings)
        self._broker_where = mask_url(client.settings.broker_url)
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
        client = self._client
        with self._lock:
            reading = read_pool(
                client.redis, self._broker if with_queues else None,
                where=client.where, broker_where=self._broker_where,
            )  # fmt: skip
            facts = self._known([_key(job) for job in reading.jobs if job.head])
            self._view = view_pool(reading, facts, earlier=self._view)
            return self._view

    def close(self) -> None:
        """Close its own connection."""
        self._broker.close()

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
            spec = self._client.records.spec(*key)
            manifest = self._client.datasets.at(spec.dataset, spec.dataset_version)
        except KubemlError:
            # The job was deleted meanwhile, or S3 is silent: the live state is worth showing alone.
            return None
        return JobFacts(
            function=spec.function, epochs=spec.epochs, batch_size=spec.batch_size, k=spec.k,
            num_rows=manifest.train.num_rows, created_at=spec.created_at,
        )  # fmt: skip


def _key(job: JobReading) -> _Key:
    return job.id, job.head.life


def read_demand(client: "Client") -> list[QueueDemand]:
    """Return the demand of every queue; see ``Client.demand``."""
    now = read_workload(client.redis, where=client.where)
    broker = broker_client(client.settings)
    try:
        waiting = read_waiting(broker, where=mask_url(client.settings.broker_url))
    finally:
        broker.close()
    return queue_demands(now, waiting)


def read_staffing(client: "Client") -> Staffing:
    """Return who is in the pool, and how many of them are busy."""
    now = read_workload(client.redis, where=client.where)
    return Staffing.of(now.jobs, now.nodes)
