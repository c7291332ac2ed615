"""One thread for each live job: it runs the job's keeper on every hint, contribution and tick."""

import logging
import threading
import time

from brokers.rounds.snapshot import Snapshot
from kubeml.errors import (
    BackendRefused,
    BackendUnreachable,
    JobNotFound,
    KubemlError,
)
from kubeml.logs import work_on
from kubeml.server.keeper import JobKeeper

logger = logging.getLogger(__name__)

#: After an error a keeper waits this long, then twice as long, up to the maximum.
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 10.0

#: The maximum while a server is away: the job may go on this much later than it could.
_MAX_OUTAGE_BACKOFF_S = 3.0

#: After this many errors in a row that are no outage, the job is failed with the last one.
_MAX_FAULTS = 8

#: A look at one job that takes this long will never end: the largest merges take a minute or so.
_STUCK_AFTER_S = 600.0


def next_backoff(backoff_s: float, *, is_outage: bool) -> float:
    """Return how long a keeper waits after an error, given its last wait (0: there was none)."""
    longest = _MAX_OUTAGE_BACKOFF_S if is_outage else _MAX_BACKOFF_S
    return min(longest, max(_BACKOFF_S, backoff_s * 2))


class KeeperThread(threading.Thread):
    """Runs one job's keeper on every hint, knock and tick until the job has ended.

    A hint is a message, which any parameter server may get. A knock comes from the job's own live
    state, at every contribution, to the process that looks after the job.
    """

    def __init__(self, keeper: JobKeeper, *, tick_s: float) -> None:
        super().__init__(name=f"keeper-{keeper.job_id}", daemon=True)
        self._keeper = keeper
        self._tick_s = tick_s
        self._hinted = threading.Event()
        self._stopped = threading.Event()
        self._is_listening = False
        self._lock = threading.Lock()
        #: Whether it will look no more, and is about to end.
        self.is_over = False
        #: When the job was found to have no record, by the monotonic clock.
        self.stray_since: float | None = None
        #: When the present look at the job began, by the monotonic clock.
        self._busy_since: float | None = None

    def hint(self) -> bool:
        """Look at the job now; return False if this thread will look no more."""
        with self._lock:
            if self.is_over:
                return False
            self._hinted.set()
        self._interrupt()
        return True

    def is_stuck(self, now: float) -> bool:
        """Return whether a look at the job does not end; ``now`` is by the monotonic clock."""
        since = self._busy_since
        return self.is_alive() and since is not None and now - since > _STUCK_AFTER_S

    def stop(self) -> None:
        """End the thread once its present look is done."""
        self._stopped.set()
        self.hint()

    def run(self) -> None:
        """Reconcile until the job has ended; report errors, and try again ever more slowly."""
        work_on(self._keeper.job_id)
        backoff, faults = 0.0, 0
        # The first look is a tick: a process without the job's lease hears of no contributions.
        due = time.monotonic()
        while not self._stopped.is_set():
            try:
                self._busy_since = None
                news = self._wait(backoff or due - time.monotonic(), patiently=backoff > 0)
                self._hinted.clear()
                # By the clock, not by the absence of hints: with short rounds they never cease.
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
            except Exception as err:  # the border of a thread that must survive a job's trouble
                outage = isinstance(err, BackendUnreachable | BackendRefused)
                faults = 0 if outage else faults + 1
                backoff = next_backoff(backoff, is_outage=outage)
                logger.exception("job %s: again in %.1f s", self._keeper.job_id, backoff)
                if faults >= _MAX_FAULTS:
                    self._give_up(err)
        try:
            self._keeper.secure()
        except KubemlError as err:
            # Weights that cannot be kept are made again from the last checkpoint.
            logger.warning("job %s: its weights are not in the file: %s", self._keeper.job_id, err)

    def _end(self) -> bool:
        """End this thread unless a hint came meanwhile, and return whether it is over.

        A hint that came during the last look may say that the job was resumed.
        """
        with self._lock:
            self.is_over = self._stopped.is_set() or not self._hinted.is_set()
            return self.is_over

    def _wait(self, timeout_s: float, *, patiently: bool) -> Snapshot | None:
        """Wait for a hint, for the time-out, or (unless ``patiently``) for a knock.

        Returns:
            The job's state, if it was read on the way.
        """
        if patiently or not self._keeper.is_owner:
            self._hinted.wait(max(0.0, timeout_s))
            return None
        self._is_listening = True
        try:
            # In this order: a caller that sets the hint later sees that this thread listens.
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
