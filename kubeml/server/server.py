"""The parameter server: a kombu consumer of hints, and one keeper thread per live job.

``kubeml ps`` runs it, and any number of them may run. Hints only save time: every keeper also looks
by itself, tick by tick.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from kombu.messaging import Consumer
from kombu.mixins import ConsumerMixin

from brokers import fail_points
from brokers.alive_files import alive_file
from brokers.messages.hint import Hint
from brokers.messages.topology import BrokerConnection, ps_queue, verified
from brokers.pool.presence import Heart
from brokers.pool.refusals import note_refused
from brokers.rounds.index import live_jobs
from brokers.settings import Settings
from brokers.wire import new_id
from kubeml.backends import Backends
from kubeml.errors import KubemlError, MalformedMessage
from kubeml.metrics.job_books import JobBooks
from kubeml.server.keeper import JobKeeper
from kubeml.server.keeper_thread import KeeperThread
from kubeml.server.services import Services
from kubeml.server.sharing import Sharing

logger = logging.getLogger(__name__)

#: How often S3 is asked for jobs whose live state was lost altogether.
_RECOVERY_EVERY_S = 15.0

#: A live state without a record (its job was deleted, say) is looked at again after this long.
_STRAY_EVERY_S = 60.0


class ParameterServer(ConsumerMixin):
    """Takes hints from the queue and gives each live job a keeper."""

    def __init__(self, backends: Backends) -> None:
        backends.open()
        settings = backends.settings
        #: ConsumerMixin clones this connection on every reconnect.
        self.connection = BrokerConnection(  # type: ignore[no-untyped-call]
            verified(settings.broker_url),
            transport_options={
                "socket_timeout": 10,
                "socket_connect_timeout": 5,
                "socket_keepalive": True,
                "health_check_interval": 10,
            },
        )
        self.name = f"ps-{socket.gethostname()}-{os.getpid()}"
        self._backends, self._tick_s = backends, settings.tick_s
        self.services = Services(
            backends=backends,
            sharing=Sharing(backends.redis),
            name=f"{self.name}-{new_id()[:8]}",
            books=JobBooks(settings.metrics_keep_s),
        )
        self._keepers: dict[str, KeeperThread] = {}
        self._looked_at = 0.0
        self._recovered_at = 0.0

    def get_consumers(self, consumer: Callable[..., Consumer], channel: Any) -> list[Consumer]:
        """Accept JSON alone; the mixin logs and drops messages that cannot be decoded."""
        return [
            consumer([ps_queue()], callbacks=[self._on_hint], accept=["json"], prefetch_count=64)
        ]

    def on_iteration(self) -> None:
        """Give a keeper to jobs without one; kombu calls this before every wait."""
        now = time.monotonic()
        if not any(thread.is_stuck(now) for thread in self._keepers.values()):
            alive_file.note()
        if self.should_stop or now - self._looked_at < self._tick_s:
            return
        self._looked_at = now
        try:
            for job_id in live_jobs(self._backends.redis):
                if not self._is_stray(job_id, now):
                    self._keeper(job_id)
            if now - self._recovered_at >= _RECOVERY_EVERY_S:
                self._recovered_at = now
                for job_id in self._backends.records.active():
                    self._keeper(job_id)
        except KubemlError as err:
            logger.warning("cannot look for jobs: %s", err)
        self._keepers = {
            job_id: thread
            for job_id, thread in self._keepers.items()
            if thread.is_alive() or self._is_stray(job_id, now)
        }

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        """Go on connecting, unless this process was told to end."""
        if self.should_stop:
            raise SystemExit(0)
        logger.warning("the broker does not answer (%s), again in %.0f s", exc, interval)

    def join(self, timeout_s: float) -> None:
        """Wait until the keepers have finished the work in hand."""
        for thread in self._keepers.values():
            thread.stop()
        deadline = time.monotonic() + timeout_s
        for thread in self._keepers.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _is_stray(self, job_id: str, now: float) -> bool:
        """Return whether the job was lately found to have no record."""
        thread = self._keepers.get(job_id)
        since = thread.stray_since if thread is not None else None
        return since is not None and now - since < _STRAY_EVERY_S

    def _keeper(self, job_id: str) -> KeeperThread:
        thread = self._keepers.get(job_id)
        if thread is None or thread.is_over or not thread.is_alive():
            keeper = JobKeeper(job_id, self.services)
            thread = self._keepers[job_id] = KeeperThread(keeper, tick_s=self._tick_s)
            thread.start()
        return thread

    def _on_hint(self, body: Any, message: Any) -> None:
        message.ack()  # first: a lost hint costs one tick; one that kills us must not come back
        try:
            job_id = Hint.from_wire(body).job_id
            if not self._keeper(job_id).hint():
                self._keeper(job_id)  # a new keeper, whose first look is at once
        except MalformedMessage as err:
            note_refused(self._backends.redis, "hint", err)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop a message that is not JSON (a pickle, say), and count it."""
        message.ack()
        note_refused(self._backends.redis, "message", exc)


def main(settings: Settings) -> None:
    """Run a parameter server until SIGTERM or SIGINT."""
    fail_points.install(settings.fail, "ps")
    backends = Backends(settings)
    server = ParameterServer(backends)
    heart = Heart(backends.redis, server.name, "ps")
    if settings.metrics_port:
        # Imported here: prometheus_client takes memory, and most processes serve no metrics.
        from kubeml.metrics.exporter import serve_parameter_server

        services = server.services
        serve_parameter_server(backends, name=services.name, books=services.books)

    def stop(_signal: int, _frame: object) -> None:
        # Do nothing else: a handler that takes a lock may wait for the code it interrupted.
        server.should_stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    heart.start()
    alive_file.begin(settings.home, "ps", server.name)
    logger.info("parameter server %s is up", server.name)
    # The mixin reconnects by itself. Its wait ends every second, so that a signal is noticed.
    try:
        server.run(safety_interval=1)  # type: ignore[no-untyped-call]
    finally:
        server.join(10.0)
        heart.stop()
        alive_file.end()
