"""Queues, task names and Celery's configuration; the one place that builds a Celery app.

For every setting that is not Celery's default, the default was seen to do harm; the reason stands
beside it.
"""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from brokers.alive_files import alive_file
from brokers.messages.queues import CONTROL_QUEUE, DEVICES, PS_QUEUE, worker_queues
from brokers.settings import Settings

TRAIN = "kubeml.train"
VALIDATE = "kubeml.validate"
INFER = "kubeml.infer"
SCHEDULE = "kubeml.schedule"

#: Stage of a job to the task that serves it; a training task serves an INIT.
TASK_OF = {"init": TRAIN, "train": TRAIN, "validate": VALIDATE}

_VISIBILITY_TIMEOUT_S = 3600

_TRANSPORT = {
    # Queues are served in the order they are given, so that inference goes before training.
    "queue_order_strategy": "priority",
    "visibility_timeout": _VISIBILITY_TIMEOUT_S,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Without a time-out a worker hangs for ever on a half-open connection.
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,
}


def _queue(name: str) -> Queue:
    return Queue(name, Exchange("kubeml", type="direct"), routing_key=name)


def ps_queue() -> Queue:
    """Return the queue of the parameter servers' hints."""
    return _queue(PS_QUEUE)


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return Celery's configuration, for workers, control workers and senders alike."""
    url = verified(settings.broker_url)
    names = [CONTROL_QUEUE, *(name for device in DEVICES for name in worker_queues(device))]
    return {
        "broker_url": url,
        # The URL says it too, but Flower does not read it there when it asks for queue lengths.
        "broker_use_ssl": _tls_options(url) or False,
        "result_backend": url,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "event_serializer": "json",
        "task_queues": [_queue(name) for name in names],
        "task_default_queue": CONTROL_QUEUE,
        "task_default_exchange": "kubeml",
        # Otherwise a misspelt queue would swallow messages silently.
        "task_create_missing_queues": False,
        "broker_transport_options": _TRANSPORT,
        "result_backend_transport_options": _TRANSPORT,
        "visibility_timeout": _VISIBILITY_TIMEOUT_S,
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 10,
        "redis_retry_on_timeout": True,
        "result_backend_always_retry": True,
        "result_backend_max_retries": 10,
        "result_expires": 3600,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Otherwise a full Redis kills the workers.
        "broker_channel_error_retry": True,
        "broker_pool_limit": 4,
        # A task that kills its worker would come again for ever; the round store repeats lost work.
        "task_reject_on_worker_lost": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_prefetch_multiplier": 1,
        # Otherwise a message is parked at a busy worker, where autoscalers do not see it.
        "worker_disable_prefetch": True,
        "worker_proc_alive_timeout": 60,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "task_track_started": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "enable_utc": True,
        "timezone": "UTC",
    }


def verified(url: str) -> str:
    """Return the URL with the default spelt out that a TLS server's certificate is checked."""
    if not url.startswith("rediss:") or "ssl_cert_reqs=" in url:
        return str(url)
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def _tls_options(url: str) -> dict[str, str]:
    query = parse_qsl(urlsplit(url).query)
    return {name: value for name, value in query if name.startswith("ssl_")}


class BrokerConnection(Connection):
    """A connection that is tried again every second or two; kombu's own pause grows to 30 s."""

    def ensure_connection(self, errback: Any = None, *args: Any, **options: Any) -> Any:
        """Connect, however long it takes; see kombu."""

        def failed(error: Any, interval: float) -> None:
            alive_file.note()
            if errback is not None:
                errback(error, interval)

        pauses = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2}
        return super().ensure_connection(failed, *args, **pauses, **options)  # type: ignore[no-untyped-call]


class _Amqp(AMQP):
    Connection = BrokerConnection


def make_app(settings: Settings, *, name: str = "kubeml") -> Celery:
    """Return a Celery app on the settings' broker; only ``tasks`` registers tasks."""
    app = Celery(name, set_as_current=False, amqp=_Amqp)
    app.conf.update(celery_config(settings))
    return app
