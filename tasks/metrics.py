"""Metrics of Celery workers, served by the process that does the work."""

from tasks.app import settings


def serve(role: str) -> None:
    """Serve this process's metrics from now on."""
    # Here: prometheus_client takes memory, and most processes serve no metrics.
    from kubeml.metrics.exporter import serve_control, serve_worker

    if role == "worker":
        from tasks.process import this_worker

        serve_worker(settings, this_worker().book)
    else:
        from tasks.schedule import this_scheduler

        serve_control(settings, this_scheduler().book)
