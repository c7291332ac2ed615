"""Serving a process's metrics over HTTP, for a Prometheus that scrapes it.

Metrics never stop the work: if the port is taken, the process tries it again and again. A process
that was started anew needs that anyway, while the one before it ends.
"""

import logging
import threading

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from brokers.settings import Settings
from kubeml.backends import Backends
from kubeml.metrics.job_books import JobBooks
from kubeml.metrics.pool_collector import PoolCollector
from kubeml.metrics.role_collectors import ControlCollector, JobCollector, WorkerCollector
from kubeml.metrics.scheduler_book import SchedulerBook
from kubeml.metrics.worker_book import WorkerBook

logger = logging.getLogger(__name__)

#: A port that is taken is tried again after this long.
_AGAIN_AFTER_S = 2.0


def serve_parameter_server(backends: Backends, *, name: str, books: JobBooks) -> None:
    """Serve the metrics of jobs and pool from now on.

    Args:
        backends: The process's.
        name: That of the parameter server, as a job's owner.
        books: What it sees of its jobs.
    """
    pool = PoolCollector(backends)
    serve(backends.settings, JobCollector(books, name, backends.records, pool.view), pool)


def serve_control(settings: Settings, book: SchedulerBook) -> None:
    """Serve a control worker's metrics from now on."""
    serve(settings, ControlCollector(book))


def serve_worker(settings: Settings, book: WorkerBook) -> None:
    """Serve a training worker's metrics from now on, in the process that does the work."""
    serve(settings, WorkerCollector(book))


def serve(settings: Settings, *collectors: Collector) -> None:
    """Serve what these collectors give, and the process's own metrics, from a daemon thread."""
    registry = CollectorRegistry()
    for collector in (*collectors, ProcessCollector(registry=None)):
        registry.register(collector)
    threading.Thread(
        target=_bind, args=(settings, registry), name="kubeml-metrics", daemon=True
    ).start()


def _bind(settings: Settings, registry: CollectorRegistry) -> None:
    where = f"{settings.metrics_host}:{settings.metrics_port}"
    has_complained = False
    while True:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host, registry)
        except OSError as err:
            if not has_complained:
                logger.error("no metrics at %s (%s): asking for it again", where, err)  # noqa: TRY400
                has_complained = True
            threading.Event().wait(_AGAIN_AFTER_S)
        else:
            logger.info("metrics at http://%s/metrics", where)
            return
