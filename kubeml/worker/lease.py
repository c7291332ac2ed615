"""Keeps a slot's lease alive from a thread, as long as the work on the slot makes progress."""

import logging
import os
import signal
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from brokers.rounds.answers import Work
from brokers.rounds.participation import Participation
from brokers.rounds.streams import JobStreams
from kubeml.errors import Abandoned, KubemlError
from kubeml.worker.function_log import FunctionLog

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 1.0

#: A function may hang if no batch finishes for as long as this many batches usually take.
_STALL_BATCHES = 20


class LeaseLost(Abandoned):
    """The slot is no longer ours, or the job stops: drop the work at the next batch."""


@dataclass
class Progress:
    """When the last batch finished, and how long batches take; pure bookkeeping."""

    last_at: float
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=50))

    def batch_done(self, now: float) -> None:
        """Note a finished batch."""
        self.recent_s.append(now - self.last_at)
        self.last_at = now

    def is_stalled(self, now: float, stall_s: float) -> bool:
        """Return whether no batch finished for too long: ``stall_s``, or 20 usual batches."""
        usual = statistics.median(self.recent_s) if self.recent_s else 0.0
        return now - self.last_at > max(stall_s, _STALL_BATCHES * usual)


class LeaseKeeper(threading.Thread):
    """Beats for the work in hand, and forwards the function's log lines, once a second."""

    def __init__(
        self, store: Participation, streams: JobStreams, *, gen: str, token: str, stall_s: float
    ) -> None:
        super().__init__(name=f"lease-{store.job_id}", daemon=True)
        self._store, self._streams, self._gen, self._token = store, streams, gen, token
        self._stall_s = stall_s
        self._work: Work | None = None
        self._progress = Progress(last_at=time.monotonic())
        self._lost = threading.Event()
        self._stopped = threading.Event()
        self.log: FunctionLog | None = None

    def begin(self, work: Work) -> None:
        """Beat for this slot from now on."""
        self._progress.last_at = time.monotonic()
        self._lost.clear()
        self._work = work

    def end(self) -> None:
        """Stop beating: the slot was handed in or dropped."""
        self._work = None

    def on_batch(self, _index: int) -> None:
        """Note a finished batch; to be called after every batch.

        Raises:
            LeaseLost: The slot is no longer ours.
        """
        self._progress.batch_done(time.monotonic())
        if self._lost.is_set():
            raise LeaseLost

    def stop(self) -> None:
        """End the thread, and forward the last log lines."""
        self._stopped.set()
        self.join()
        self.forward()

    def run(self) -> None:
        """Beat until stopped."""
        while not self._stopped.wait(BEAT_EVERY_S):
            self._beat()
            self.forward()

    def _beat(self) -> None:
        work = self._work
        if work is None:
            return
        if self._progress.is_stalled(time.monotonic(), self._stall_s):
            self._end_hung(work)
            return
        try:
            answer = self._store.beat(self._gen, token=self._token, slot=work.slot, rid=work.rid)
        except KubemlError as err:
            # The lease lasts for some more seconds; if the server stays away, it is lost anyway.
            logger.warning("beat failed: %s", err)
            return
        if answer != "OK" and self._work is work:
            self._lost.set()

    def _end_hung(self, work: Work) -> None:
        """Give the slot back and end this process, since nothing else frees it from hung code.

        Celery starts another child in its place.
        """
        why = f"train() or validate() finished no batch for {self._stall_s:g} s: it hangs"
        logger.error("job %s: slot %d: %s", self._store.job_id, work.slot, why)
        try:
            self.forward()
            self._store.kick(
                self._gen, work.rid, slot=work.slot, who=self._token, kind="error", why=why
            )
        except KubemlError as err:
            logger.warning("the slot's lease runs out instead: %s", err)
        os.kill(os.getpid(), signal.SIGKILL)

    def forward(self) -> None:
        """Send the gathered log lines."""
        if self.log is None:
            return
        try:
            self.log.drain(self._streams.log)
        except KubemlError as err:
            logger.warning("log lines wait: %s", err)
