"""The parameter server: a kombu consumer of hints, and one keeper thread per live job.

Any number of them may run. Hints save time; every keeper also looks by itself, tick by tick.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from kombu.messaging import Consumer
from kombu.mixins import ConsumerMixin

from brokers import fail_points
from brokers.connections import broker_client, state_client
from brokers.dispatch import Dispatcher
from brokers.job_index import live_jobs
from brokers.nodes import Heart
from brokers.objects import ObjectStore
from brokers.progress import progress
from brokers.protocol import Hint
from brokers.refusals import note_refused
from brokers.round_store import new_id
from brokers.settings import Settings
from brokers.snapshot import Snapshot
from brokers.topology import BrokerConnection, ps_queue, verified
from kubeml.errors import (
    BackendRefused,
    BackendUnreachable,
    JobNotFound,
    KubemlError,
    MalformedMessage,
)
from kubeml.job_keeper import JobKeeper, Services
from kubeml.log_lines import work_on
from kubeml.metrics.job_books import JobBooks
from kubeml.records import JobRecords
from kubeml.sharing import Sharing

logger = logging.getLogger(__name__)

#: How often S3 is asked for jobs whose live state was lost altogether.
_RECOVERY_EVERY_S = 15.0

#: A live state without a record (its job was deleted, say) is looked at again after so long.
_STRAY_EVERY_S = 60.0

#: After an error a keeper waits this long, then twice as long, up to the maximum.
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 10.0

#: Up to this one while a server is away: by so much the job goes on later than it could.
_MAX_OUTAGE_BACKOFF_S = 3.0

#: After so many errors in a row that are no outage, the job is failed with the last one.
_MAX_FAULTS = 8

#: A look at one job that takes so long will not end: the largest merges take a minute or so.
_STUCK_AFTER_S = 600.0


def next_backoff(backoff_s: float, *, is_outage: bool) -> float:
    """Seconds that a keeper waits after an error, given those after the one before (0: none)."""
    longest = _MAX_OUTAGE_BACKOFF_S if is_outage else _MAX_BACKOFF_S
    return min(longest, max(_BACKOFF_S, backoff_s * 2))


class KeeperThread(threading.Thread):
    """Runs one job's keeper on every hint, knock and tick until the job has ended.

    Hints are messages, for whoever gets them; knocks come from the job's own live state, at every
    contribution, for the one that looks after it.
    """

    def __init__(self, keeper: JobKeeper, *, tick_s: float) -> None:
        super().__init__(name=f"keeper-{keeper.job_id}", daemon=True)
        self._keeper = keeper
        self._tick_s = tick_s
        self._hinted = threading.Event()
        self._stopped = threading.Event()
        self._is_listening = False
        self._lock = threading.Lock()
        #: Whether it looks at nothing any more; it ends at once.
        self.is_over = False
        #: When the job was found to have no record, by the monotonic clock.
        self.stray_since: float | None = None
        #: Since when the job is looked at, by the monotonic clock.
        self._busy_since: float | None = None

    def hint(self) -> bool:
        """Look at the job now; returns False if this thread looks at nothing any more."""
        with self._lock:
            if self.is_over:
                return False
            self._hinted.set()
        self._interrupt()
        return True

    def is_stuck(self, now: float) -> bool:
        """Whether one look at the job does not end; ``now`` by the monotonic clock."""
        since = self._busy_since
        return self.is_alive() and since is not None and now - since > _STUCK_AFTER_S

    def stop(self) -> None:
        """End the thread after what it has in hand."""
        self._stopped.set()
        self.hint()

    def run(self) -> None:
        """Reconcile until the job has ended; an error is reported and tried again, more slowly."""
        work_on(self._keeper.job_id)
        backoff, faults = 0.0, 0
        # The first look is a tick: who has not taken the job on hears nothing of contributions.
        due = time.monotonic()
        while not self._stopped.is_set():
            try:
                self._busy_since = None
                news = self._wait(backoff or due - time.monotonic(), patiently=backoff > 0)
                self._hinted.clear()
                # By the clock, not by the absence of hints: those of short rounds never cease.
                is_tick = time.monotonic() >= due
                if is_tick:
                    due = time.monotonic() + self._tick_s
                self._busy_since = time.monotonic()
                if not self._keeper.reconcile(is_tick=is_tick, news=news) and self._end():
                    return
                backoff, faults = 0.0, 0
            except JobNotFound:
                if self._end():
                    logger.warning("job %s has no record: left alone", self._keeper.job_id)
                    self.stray_since = time.monotonic()
                    return
            except Exception as err:  # the border of a thread that must outlive one job's trouble
                outage = isinstance(err, BackendUnreachable | BackendRefused)
                faults = 0 if outage else faults + 1
                backoff = next_backoff(backoff, is_outage=outage)
                logger.exception("job %s: again in %.1f s", self._keeper.job_id, backoff)
                if faults >= _MAX_FAULTS:
                    self._give_up(err)
        try:
            self._keeper.secure()
        except KubemlError as err:
            # What cannot be kept is made again, from the last checkpoint.
            logger.warning("job %s: its weights are not in the file: %s", self._keeper.job_id, err)

    def _end(self) -> bool:
        """Whether nobody has asked for another look meanwhile; if so, this thread is over.

        A hint that came during the last look may tell that the job was resumed.
        """
        with self._lock:
            self.is_over = self._stopped.is_set() or not self._hinted.is_set()
            return self.is_over

    def _wait(self, timeout_s: float, *, patiently: bool) -> Snapshot | None:
        """Return on a hint, or when the time is over, or (unless patiently) on a knock.

        Returns:
            The job's state, if it was read on the way.
        """
        if patiently or not self._keeper.is_owner:
            self._hinted.wait(max(0.0, timeout_s))
            return None
        self._is_listening = True
        try:
            # In this order: whoever sets the hint afterwards sees that this thread listens.
            return None if self._hinted.is_set() else self._keeper.wait_for_news(timeout_s)
        finally:
            self._is_listening = False

    def _interrupt(self) -> None:
        if not self._is_listening:
            return
        try:
            self._keeper.knock()
        except KubemlError as err:
            logger.warning("job %s: hint waits for the tick: %s", self._keeper.job_id, err)

    def _give_up(self, err: Exception) -> None:
        """Fail a job that cannot be helped, rather than try for ever in silence."""
        try:
            self._keeper.fail(f"the parameter server cannot go on: {type(err).__name__}: {err}")
        except KubemlError as again:
            logger.warning("job %s: cannot be failed: %s", self._keeper.job_id, again)


class ParameterServer(ConsumerMixin):
    """Takes hints from the queue and gives each live job a keeper."""

    def __init__(self, settings: Settings) -> None:
        #: ConsumerMixin clones it on every reconnect.
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
        self._settings = settings
        self._client = state_client(settings)
        self._objects = ObjectStore(settings)
        self.services = Services(
            settings=settings,
            client=self._client,
            broker=broker_client(settings),
            objects=self._objects,
            dispatcher=Dispatcher(settings),
            sharing=Sharing(self._client),
            name=f"{self.name}-{new_id()[:8]}",
            books=JobBooks(settings.metrics_keep_s),
        )
        self._keepers: dict[str, KeeperThread] = {}
        self._looked_at = 0.0
        self._recovered_at = 0.0

    def get_consumers(self, consumer: Callable[..., Consumer], channel: Any) -> list[Consumer]:
        """Accept JSON alone; what cannot be decoded is logged and dropped by the mixin."""
        return [
            consumer([ps_queue()], callbacks=[self._on_hint], accept=["json"], prefetch_count=64)
        ]

    def on_iteration(self) -> None:
        """Look for jobs without a keeper; kombu calls this before every wait."""
        now = time.monotonic()
        if not any(thread.is_stuck(now) for thread in self._keepers.values()):
            progress.note()
        if self.should_stop or now - self._looked_at < self._settings.tick_s:
            return
        self._looked_at = now
        try:
            for job_id in live_jobs(self._client):
                if not self._is_stray(job_id, now):
                    self._keeper(job_id)
            if now - self._recovered_at >= _RECOVERY_EVERY_S:
                self._recovered_at = now
                for job_id in JobRecords(self._objects).active():
                    self._keeper(job_id)
        except KubemlError as err:
            logger.warning("cannot look for jobs: %s", err)
        self._keepers = {
            job_id: thread
            for job_id, thread in self._keepers.items()
            if thread.is_alive() or self._is_stray(job_id, now)
        }

    def on_connection_error(self, exc: Exception, interval: float) -> None:
        """Go on connecting, unless this process is to end."""
        if self.should_stop:
            raise SystemExit(0)
        logger.warning("the broker does not answer (%s), again in %.0f s", exc, interval)

    def join(self, timeout_s: float) -> None:
        """Let the keepers end what they have in hand."""
        for thread in self._keepers.values():
            thread.stop()
        deadline = time.monotonic() + timeout_s
        for thread in self._keepers.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _is_stray(self, job_id: str, now: float) -> bool:
        """Whether the job was found to have no record a short while ago."""
        thread = self._keepers.get(job_id)
        since = thread.stray_since if thread is not None else None
        return since is not None and now - since < _STRAY_EVERY_S

    def _keeper(self, job_id: str) -> KeeperThread:
        thread = self._keepers.get(job_id)
        if thread is None or thread.is_over or not thread.is_alive():
            keeper = JobKeeper(job_id, self.services)
            thread = self._keepers[job_id] = KeeperThread(keeper, tick_s=self._settings.tick_s)
            thread.start()
        return thread

    def _on_hint(self, body: Any, message: Any) -> None:
        message.ack()  # first: a lost hint costs one tick, a poisonous one must not come back
        try:
            job_id = Hint.from_wire(body).job_id
            if not self._keeper(job_id).hint():
                self._keeper(job_id)  # another one, whose first look is at once
        except MalformedMessage as err:
            note_refused(self._client, "hint", err)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop what is not JSON (a pickle, say), and count it."""
        message.ack()
        note_refused(self._client, "message", exc)


def main(settings: Settings) -> None:
    """Run a parameter server until SIGTERM or SIGINT."""
    fail_points.install(settings.fail, "ps")
    server = ParameterServer(settings)
    heart = Heart(state_client(settings), server.name, "ps")
    if settings.metrics_port:
        # Here: prometheus_client takes memory, and most processes serve no metrics.
        from kubeml.metrics.exporter import serve_parameter_server

        serve_parameter_server(settings, server.services)

    def stop(_signal: int, _frame: object) -> None:
        # Nothing else here: a handler that takes a lock may wait for the code it interrupted.
        server.should_stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    heart.start()
    progress.begin(settings.home, "ps", server.name)
    logger.info("parameter server %s is up", server.name)
    # The mixin reconnects by itself; its wait ends every tick, so that a signal is heard.
    try:
        server.run(safety_interval=1)  # type: ignore[no-untyped-call]
    finally:
        server.join(10.0)
        heart.stop()
        progress.end()
