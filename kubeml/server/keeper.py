"""The parameter server's work for one job: compare desired with actual, and repair.

A keeper holds no truth: everything it decides is read from the round store and committed by a
script that refuses what is out of date. It may be killed, paused or doubled at any line.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brokers import fail_points
from brokers.messages.dispatch import Dispatcher
from brokers.messages.hint import Hint
from brokers.objects.store import ObjectStore
from brokers.rounds.contribution import Contribution
from brokers.rounds.keeping import Keeping
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.streams import JobStreams
from brokers.settings import Settings
from brokers.state.batch import Batch
from brokers.tensors.channel import TensorChannel
from brokers.tensors.reference import TensorRef
from brokers.wire import new_id
from kubeml.errors import BackendUnreachable, ChunksMissing, Corrupted, KubemlError
from kubeml.jobs.checkpoint import Checkpoints
from kubeml.jobs.generations import Generations
from kubeml.jobs.records import JobRecords
from kubeml.jobs.spec import JobSpec, State
from kubeml.logs import work_on
from kubeml.metrics.job_books import JobBooks
from kubeml.server.contributions import ledger_entry
from kubeml.server.dispatch_watch import DispatchWatch
from kubeml.server.job_tensors import JobTensors
from kubeml.server.merger import RoundMerger, Staged
from kubeml.server.recorder import EpochRecorder
from kubeml.server.sharing import Sharing

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

#: Parameter servers share jobs by a short lease; the other takes over after this long.
OWNER_TTL_MS = 1500


#: Small contributions that are read together: hardly longer than one, and of 2 MiB at most.
_READ_ALONG = 16


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a keeper works with; shared by all keepers of a process."""

    settings: Settings
    client: "Redis"
    broker: "Redis"
    objects: ObjectStore
    dispatcher: Dispatcher
    sharing: Sharing
    name: str
    books: JobBooks


class JobKeeper:
    """Looks after one job. Not thread-safe: one thread at a time."""

    def __init__(self, job_id: str, services: Services) -> None:
        self.job_id = job_id
        self._services = services
        self._store = Keeping(services.client, job_id)
        self._channel = TensorChannel(services.client)
        self._streams = JobStreams(services.client, job_id)
        self._records = JobRecords(services.objects)
        self._merger = RoundMerger(
            self._store,
            self._channel,
            self._streams,
            Checkpoints(services.objects),
            services.client,
        )
        self._tensors = JobTensors(self._store, self._channel, self._merger)
        self._generations = Generations(services.settings, services.client, services.objects)
        self._watch = DispatchWatch(services.dispatcher, self._store, job_id)
        self._recorder = EpochRecorder(services.objects, self._store, self._channel, self._streams)
        self._spec: tuple[str, JobSpec] | None = None
        self._gen = ""
        self._owned_until = 0.0
        self._knock = "0-0"
        self._merging_since = 0.0
        #: Why its metrics are incomplete, as it was logged last.
        self._unnoted = ""
        #: Chunks that were handed in since the last merge.
        self._handed_in: list[str] = []
        #: Commands that nobody waits for: they go along with the next ones.
        self._later = Batch()

    @property
    def spec(self) -> JobSpec:
        """The job's spec, read once in each generation: a later life may have another one."""
        if self._spec is None or self._spec[0] != self._gen:
            self._spec = (self._gen, self._records.spec(self.job_id))
        return self._spec[1]

    @property
    def is_owner(self) -> bool:
        """Whether this process looks after the job, as far as it knows."""
        return time.monotonic() < self._owned_until

    def wait_for_news(self, timeout_s: float) -> Snapshot | None:
        """Wait until there is something to merge, or for so long; returns what there is then."""
        deadline = time.monotonic() + timeout_s
        while True:
            block_ms = int((deadline - time.monotonic()) * 1000)
            later = self._later.take()
            knock = self._store.wait_for_knock(self._knock, block_ms=max(1, block_ms), first=later)
            self._knock = knock.id
            if self._merger.folds_early:
                return self._store.snapshot() if knock.left >= 0 else None
            self._handed_in += knock.chunks
            if knock.left == 0:
                # Small ones are read along with the state: their round is complete, most likely.
                chunks, self._handed_in = self._handed_in[-_READ_ALONG:], []
                return self._store.snapshot(chunks=chunks)
            if block_ms <= 0:
                return None

    def knock(self) -> None:
        """End the wait of the thread that is in ``wait_for_news``."""
        self._store.knock()

    def secure(self) -> None:
        """Before this process ends; see ``JobTensors.secure``."""
        if self.is_owner:
            self._tensors.secure()

    def reconcile(self, *, is_tick: bool, news: Snapshot | None = None) -> bool:
        """Do whatever the job needs now.

        Args:
            is_tick: Whether nobody asked for it. Ticks are left to the job's owner; a hint is
                served by whoever got it.
            news: The job's state, if it was read just now.

        Returns:
            Whether the job is alive still.
        """
        while True:
            snap, news = news or self._look(), None
            if not snap.head:
                return self._revive(why="its live state was lost")
            self._note_generation(snap.gen)
            books = self._services.books
            self._note(books.look, self.job_id, snap, time.monotonic(), self._store.failed)
            work_on(self.job_id, epoch=snap.number("epoch"), round_index=snap.number("round"))
            if State(snap.state).is_final:
                if not self._conclude(snap):
                    return False
                continue
            if is_tick and not self._acquire(snap):
                return True
            fail_points.at(
                job=self.job_id, state=snap.state, epoch=snap.number("epoch"),
                round=snap.number("round"),
            )  # fmt: skip
            if is_tick:
                fail_points.reach("acquired")
            try:
                again = self._step(snap, is_tick=is_tick)
            except (ChunksMissing, Corrupted) as err:
                if not self._recover(snap, err):
                    raise
                again = True
            if not again:
                return True

    def _note(self, note: Callable[..., None], *what: object) -> None:
        """Write something into the metrics' books. They look on: the job does not wait for them."""
        try:
            note(*what)
        except Exception as err:  # whatever it is: the job's end must not depend on it
            if repr(err) != self._unnoted:
                self._unnoted = repr(err)
                logger.exception("job %s: its metrics are incomplete", self.job_id)

    def _note_generation(self, gen: str) -> None:
        if gen != self._gen:
            # A server that lost everything may count its streams from an earlier time.
            self._gen, self._knock = gen, "0-0"

    def _acquire(self, snap: Snapshot) -> bool:
        asked_at = time.monotonic()
        is_ours = self._store.acquire(snap.gen, self._services.name, ttl_ms=OWNER_TTL_MS)
        self._owned_until = asked_at + OWNER_TTL_MS / 1000 if is_ours else 0.0
        if is_ours:
            self._store.enlist()
        return is_ours

    def _step(self, snap: Snapshot, *, is_tick: bool) -> bool:
        """One step; returns whether to look again at once."""
        state = State(snap.state)
        if snap.head.get("stop") == "1":
            self._stop(snap)
            return True
        if state in {State.INIT, State.RUN} and snap.is_complete:
            return self._commit(snap, is_tick=is_tick)
        if state is State.RUN and snap.contributions and self._merger.folds_early:
            self._merger.fold_early(snap, self.spec)
        if state is State.END or (state is State.VAL and snap.is_complete):
            self._finish_epoch(snap)
            return True
        if is_tick:
            self._repair(snap)
        return False

    # -- rounds ------------------------------------------------------------------------------

    def _commit(self, snap: Snapshot, *, is_tick: bool) -> bool:
        """Merge a complete round (or take over initial weights) and ADVANCE; see ``_step``."""
        contributions = self._merger.contributions(snap)
        if contributions is None:
            return True
        fail_points.reach("read")
        self._merging_since = time.monotonic()
        if snap.state == State.INIT:
            staged = self._merger.initial(snap, contributions[0])
        else:
            staged = self._merger.merge(snap, contributions, self.spec)
        if staged is None:
            return True
        try:
            return self._advance(snap, contributions, staged, is_tick=is_tick)
        finally:
            staged.close()

    def _advance(
        self,
        snap: Snapshot,
        contributions: Sequence[Contribution],
        staged: Staged,
        *,
        is_tick: bool,
    ) -> bool:
        weights, outer = staged.weights, staged.outer_state
        fail_points.reach("after_stage")
        answer, state = self._store.advance(
            snap.gen,
            snap.rid,
            new_id(),
            weights=weights,
            outer_state=outer,
            cids=[c.cid for c in contributions],
            ledger=ledger_entry(contributions),
            parcel=staged.parcel,
        )
        if answer != "OK":
            # Somebody else committed, or the contributions changed meanwhile: look again. A
            # repeated call whose first reply was lost may be STALE and yet be the one that counts.
            if self._store.snapshot().weights != weights:
                self._channel.drop(*(ref for ref in (weights, outer) if ref))
            return answer in {"MORE", "CHANGED", "STALE"}
        fail_points.reach("after_advance")
        merge_s = time.monotonic() - self._merging_since
        self._note(self._services.books.note_merge, self.job_id, snap, contributions, merge_s)
        self._merger.remember(weights, staged.blob)
        replaced = [snap.optimizer.get(c.slot, "") for c in contributions if c.optimizer]
        stale = [TensorRef.from_json(t) for t in (*snap.local.values(), *replaced) if t]
        if not (self.spec.overlap and state == State.RUN):  # else slots go on from them
            stale += [c.ref for c in contributions]
        stale += [ref for ref in (snap.weights, snap.outer_state) if ref]
        self._later.extend(self._channel.dropping(*stale)).extend(self._news(snap, contributions))
        if state == State.RUN:
            # A tick is not over. Else there is nothing to do before the next news, which the owner
            # waits for: what is left goes along with that.
            return is_tick or not self.is_owner
        self._merger.rest()
        self._ask_for_plan(snap.number("epoch"))
        return True

    def _look(self) -> Snapshot:
        """The job's state, when what was left for later is done."""
        return self._store.snapshot(first=self._later.take())

    def _ask_for_plan(self, epoch: int) -> None:
        try:
            self._services.dispatcher.schedule(
                Hint(job_id=self.job_id), label=f"{self.job_id}-e{epoch}-schedule"
            )
        except BackendUnreachable as err:
            # A hint: the tick asks again.
            logger.warning("job %s: %s", self.job_id, err)

    def _news(self, snap: Snapshot, contributions: Sequence[Contribution]) -> Batch:
        """The event that tells of a merge."""
        if snap.state == State.INIT:
            return self._streams.event("init", layout=self._merger.layout().hash)
        samples = sum(c.num_samples for c in contributions)
        return self._streams.event(
            "round",
            epoch=snap.number("epoch"),
            round=snap.number("round") + 1,
            rounds=snap.number("rounds"),
            samples=samples,
            loss=sum(c.loss * c.num_samples for c in contributions) / samples,
            version=snap.number("ver") + 1,
            workers=len({c.worker for c in contributions}),
        )

    # -- epochs and the end ------------------------------------------------------------------

    def _finish_epoch(self, snap: Snapshot) -> None:
        contributions = self._merger.contributions(snap) if snap.state == State.VAL else []
        if contributions is None:
            return
        layout = self._merger.layout()
        row = self._recorder.record(
            self.spec, snap, layout, self._merger.origin, self._merger.weights(snap), contributions
        )
        if row is None:
            return
        self._note(self._services.books.of(self.job_id).note_row, row)
        goal = self.spec.goal_accuracy
        reached = bool(goal and row.accuracy is not None and row.accuracy >= goal)
        if reached or row.epoch >= self.spec.epochs:
            reason = f"goal accuracy {goal:g} % reached" if reached else ""
            self._store.finish(snap.gen, snap.rid, "", to=State.DONE, reason=reason)
            fail_points.reach("after_finish")
            return
        if self._store.finish(snap.gen, snap.rid, new_id(), to=State.PLAN) == "OK":
            fail_points.reach("after_finish")
            self._ask_for_plan(row.epoch + 1)

    def _stop(self, snap: Snapshot) -> None:
        self._merger.rest()
        if snap.weights is not None:
            layout = self._merger.layout()
            self._recorder.record_stop(
                snap, layout, self._merger.origin, self._merger.weights(snap)
            )
        self._store.finish(snap.gen, snap.rid, "", to=State.STOPPED, reason="stopped by the user")

    def _conclude(self, snap: Snapshot) -> bool:
        """Write down how the job ended; returns whether it goes on all the same: it was resumed."""
        if self._records.life(self.job_id) > snap.number("life"):
            return self._revive(why="resumed", seen=snap.gen)
        end = self._recorder.conclude(self.spec, snap)
        self._channel.drop(*self._tensors.references(snap))
        self._streams.emit("end", state=end.state, reason=end.reason)
        self._store.retire(snap.gen)
        logger.info("job %s: %s %s", self.job_id, end.state, end.reason.splitlines()[:1])
        return False

    def fail(self, reason: str) -> None:
        """End the job as FAILED, whatever it was doing."""
        snap = self._store.snapshot()
        if snap.head:
            self._store.finish(snap.gen, snap.rid, "", to=State.FAILED, reason=reason)

    def _recover(self, snap: Snapshot, err: KubemlError) -> bool:
        """If tensors are gone that the job refers to, restore them or go back to a checkpoint."""
        if not self._tensors.has_lost(snap):
            return False
        if self._tensors.restore(snap):
            return True
        if snap.head.get("stop") == "1":
            # Asked to stop: the last checkpoint is what there is to keep.
            reason = "stopped by the user"
            self._store.finish(snap.gen, snap.rid, "", to=State.STOPPED, reason=reason)
            return True
        return self._revive(why=str(err), seen=snap.gen)

    def _revive(self, *, why: str, seen: str = "") -> bool:
        """Rebuild the job unless it has ended (its live state expires some time after that)."""
        if self._records.end(self.job_id) is not None:
            self._store.forget()
            self._records.deactivate(self.job_id)
            return False
        is_ours = self._generations.rebuild(self.job_id, why=why, seen=seen)
        self._merger.forget()
        if is_ours and (snap := self._look()).state in {State.INIT, State.PLAN}:
            self._ask_for_plan(snap.number("epoch") + 1)
        return True

    # -- repairs -----------------------------------------------------------------------------

    def _repair(self, snap: Snapshot) -> None:
        if self._tensors.has_lost(snap) and not self._tensors.restore(snap):
            self._revive(why="some of its tensors were lost", seen=snap.gen)
            return
        self._tensors.keep_alive(snap)
        services = self._services
        services.sharing.update(self._store, snap.gen)
        try:
            waiting, _ = services.dispatcher.queue_lengths(services.broker, self.spec.device)
            self._watch.repair(snap, self.spec, queue_length=waiting)
        except BackendUnreachable as err:
            # Training goes on without the broker: who takes part needs no more messages.
            logger.warning("job %s: nothing can be dispatched: %s", self.job_id, err)
