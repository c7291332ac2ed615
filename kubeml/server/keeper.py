"""The parameter server's work for one job: compare desired with actual, and repair.

A keeper holds no truth. It decides by what it reads from the round store, and commits by scripts
that refuse whatever is out of date. It may be killed, paused or doubled at any line.

``reconcile`` is where to begin: a job that lost its state is built anew (``recovery``), a complete
round is merged (``commit``), a trained epoch is recorded (``recorder``), and so is the job's end.
"""

import logging
import time

from brokers import fail_points
from brokers.rounds.snapshot import Snapshot
from brokers.wire import new_id
from kubeml.errors import ChunksMissing, Corrupted
from kubeml.jobs.spec import State
from kubeml.logs import work_on
from kubeml.server.commit import RoundCommitter
from kubeml.server.job_in_hand import JobInHand
from kubeml.server.job_tensors import JobTensors
from kubeml.server.kept_weights import KeptWeights
from kubeml.server.recorder import EpochRecorder
from kubeml.server.recovery import Recovery
from kubeml.server.services import Services

logger = logging.getLogger(__name__)

#: How many small contributions are read together: it takes hardly longer than one of them.
_READ_ALONG = 16


class JobKeeper:
    """Looks after one job. Not thread-safe: only one thread at a time may use it."""

    def __init__(self, job_id: str, services: Services) -> None:
        self.job_id = job_id
        job = self._job = JobInHand(job_id, services)
        checkpoints = job.backends.checkpoints
        self._kept = KeptWeights(job_id, job.channel, checkpoints)
        self._tensors = JobTensors(job.store, job.channel, self._kept)
        self._rounds = RoundCommitter(job, self._kept, checkpoints)
        self._recorder = EpochRecorder(
            job.records, checkpoints, job.store, job.channel, job.streams
        )
        self._recovery = Recovery(job, self._tensors, self._kept)
        self._knock = "0-0"
        #: Keys of the chunks that were handed in since the last merge.
        self._handed_in: list[str] = []

    @property
    def is_owner(self) -> bool:
        """Whether this process looks after the job, as far as it knows."""
        return self._job.is_owned

    def wait_for_news(self, timeout_s: float) -> Snapshot | None:
        """Wait for something to merge, or for the time-out, and return the state if it was read."""
        store, deadline = self._job.store, time.monotonic() + timeout_s
        while True:
            block_ms = int((deadline - time.monotonic()) * 1000)
            later = self._job.later.take()
            knock = store.wait_for_knock(self._knock, block_ms=max(1, block_ms), first=later)
            self._knock = knock.id
            if self._rounds.folds_early:
                return store.snapshot() if knock.left >= 0 else None
            self._handed_in += knock.chunks
            if knock.left == 0:
                # Small contributions are read with the state: their round is most likely complete.
                chunks, self._handed_in = self._handed_in[-_READ_ALONG:], []
                return store.snapshot(chunks=chunks)
            if block_ms <= 0:
                return None

    def knock(self) -> None:
        """End the wait of the thread that is in ``wait_for_news``."""
        self._job.store.knock()

    def secure(self) -> None:
        """Secure the job's tensors before this process ends; see ``JobTensors.secure``."""
        if self.is_owner:
            self._tensors.secure()

    def fail(self, reason: str) -> None:
        """End the job as FAILED, whatever it was doing."""
        snap = self._job.store.snapshot()
        if snap.head:
            self._job.store.finish(snap.gen, snap.rid, "", to=State.FAILED, reason=reason)

    def reconcile(self, *, is_tick: bool, news: Snapshot | None = None) -> bool:
        """Do whatever the job needs now.

        Args:
            is_tick: Whether this is a regular look rather than one by a hint. Ticks are left to
                the job's owner; a hint is served by the process that got it.
            news: The job's state, if it was read just now.

        Returns:
            Whether the job is still alive.
        """
        while True:
            snap, news = news or self._job.read(), None
            if not snap.head:
                return self._recovery.revive(why="its live state was lost")
            self._note_state(snap)
            if State(snap.state).is_final:
                if not self._conclude(snap):
                    return False
                continue
            if is_tick and not self._job.acquire(snap.gen):
                return True
            fail_points.at(
                job=self.job_id, state=snap.state, epoch=snap.head.epoch, round=snap.head.round
            )
            if is_tick:
                fail_points.reach("acquired")
            try:
                again = self._step(snap, is_tick=is_tick)
            except (ChunksMissing, Corrupted) as err:
                if not self._recovery.recover(snap, err):
                    raise
                again = True
            if not again:
                return True

    def _note_state(self, snap: Snapshot) -> None:
        """Note in the generation, the metrics and the log where the job is."""
        job = self._job
        if snap.gen != job.gen:
            # A server that lost everything may begin its streams with earlier ids.
            job.gen, self._knock = snap.gen, "0-0"
        job.note(job.services.books.look, job.id, snap, time.monotonic(), job.store.failed)
        work_on(job.id, epoch=snap.head.epoch, round_index=snap.head.round)

    def _step(self, snap: Snapshot, *, is_tick: bool) -> bool:
        """Take one step, and return whether to look again at once."""
        if snap.head.unreadable:
            # Never decide by a head of which a field is there but counts as missing.
            why = "; ".join(snap.head.unreadable)
            return self._recovery.revive(why=f"its head cannot be read: {why}", seen=snap.gen)
        state = State(snap.state)
        if snap.head.stop:
            self._stop(snap)
            return True
        if state in {State.INIT, State.RUN} and snap.is_complete:
            return self._rounds.commit(snap, is_tick=is_tick)
        if state is State.RUN and snap.contributions and self._rounds.folds_early:
            self._rounds.fold_early(snap)
        if state is State.END or (state is State.VAL and snap.is_complete):
            self._finish_epoch(snap)
            return True
        if is_tick:
            self._recovery.repair(snap)
        return False

    def _finish_epoch(self, snap: Snapshot) -> None:
        """Record the epoch; then the job goes on to the next one, or is done."""
        contributions = self._rounds.contributions(snap) if snap.state == State.VAL else []
        if contributions is None:
            return
        job, kept = self._job, self._kept
        layout = kept.layout()
        row = self._recorder.record(
            job.spec, snap, layout, kept.origin, kept.weights(snap), contributions
        )
        if row is None:
            return
        job.note(job.services.books.of(job.id).note_row, row)
        goal = job.spec.goal_accuracy
        reached = bool(goal and row.accuracy is not None and row.accuracy >= goal)
        if reached or row.epoch >= job.spec.epochs:
            reason = f"goal accuracy {goal:g} % reached" if reached else ""
            job.store.finish(snap.gen, snap.rid, "", to=State.DONE, reason=reason)
            fail_points.reach("after_finish")
            return
        if job.store.finish(snap.gen, snap.rid, new_id(), to=State.PLAN) == "OK":
            fail_points.reach("after_finish")
            job.ask_for_plan(row.epoch + 1)

    def _stop(self, snap: Snapshot) -> None:
        """Record what the job has trained so far, and end it as its user asked."""
        self._rounds.rest()
        kept = self._kept
        if snap.weights is not None:
            layout = kept.layout()
            self._recorder.record_stop(snap, layout, kept.origin, kept.weights(snap))
        reason = "stopped by the user"
        self._job.store.finish(snap.gen, snap.rid, "", to=State.STOPPED, reason=reason)

    def _conclude(self, snap: Snapshot) -> bool:
        """Record how the job ended, and return whether it goes on because it was resumed."""
        job = self._job
        if job.records.life(job.id) > snap.head.life:
            return self._recovery.revive(why="resumed", seen=snap.gen)
        end = self._recorder.conclude(job.spec, snap)
        job.channel.drop(*self._tensors.references(snap))
        job.streams.emit("end", state=end.state, reason=end.reason)
        job.store.retire(snap.gen)
        logger.info("job %s: %s %s", job.id, end.state, end.reason.splitlines()[:1])
        return False
