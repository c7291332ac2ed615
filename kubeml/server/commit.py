"""Turns a complete round into the job's next weights: merged, staged, and committed by one script.

The keeper calls it. ADVANCE is the one line that counts. A process that dies before it has only
stored a blob that expires. A process that dies after it leaves undone only what saves memory or
informs people.
"""

import time
from collections.abc import Sequence

from brokers import fail_points
from brokers.rounds.contribution import Contribution
from brokers.rounds.snapshot import Snapshot
from brokers.state.batch import Batch
from brokers.tensors.reference import TensorRef
from brokers.wire import new_id
from kubeml.jobs.checkpoint import Checkpoints
from kubeml.jobs.spec import State
from kubeml.server.contributions import ledger_entry
from kubeml.server.job_in_hand import JobInHand
from kubeml.server.kept_weights import KeptWeights
from kubeml.server.merger import RoundMerger, Staged


class RoundCommitter:
    """Brings one job from one set of weights to the next.

    Args:
        job: The job.
        kept: The job's weights, in memory.
        checkpoints: The checkpoints, where the initial weights are recorded.
    """

    def __init__(self, job: JobInHand, kept: KeptWeights, checkpoints: Checkpoints) -> None:
        self._job, self._kept = job, kept
        self._merger = RoundMerger(
            job.store, job.channel, job.streams, checkpoints, job.backends.redis, kept
        )
        self._merging_since = 0.0

    def contributions(self, snap: Snapshot) -> list[Contribution] | None:
        """Return the round's contributions in slot order; None if one was bad and was kicked."""
        return self._merger.contributions(snap)

    @property
    def folds_early(self) -> bool:
        """Whether contributions are large enough to be folded before the round is complete."""
        return self._merger.folds_early

    def fold_early(self, snap: Snapshot) -> None:
        """Fold the contributions that an incomplete round has so far."""
        self._merger.fold_early(snap, self._job.spec)

    def commit(self, snap: Snapshot, *, is_tick: bool) -> bool:
        """Merge a complete round (or take over initial weights) and ADVANCE.

        Returns:
            Whether to look again at once.
        """
        contributions = self._merger.contributions(snap)
        if contributions is None:
            return True
        fail_points.reach("read")
        self._merging_since = time.monotonic()
        if snap.state == State.INIT:
            staged = self._merger.initial(snap, contributions[0])
        else:
            staged = self._merger.merge(snap, contributions, self._job.spec)
        if staged is None:
            return True
        try:
            return self._advance(snap, contributions, staged, is_tick=is_tick)
        finally:
            staged.close()

    def rest(self) -> None:
        """Give back the memory that only merging needs, while no round is under way."""
        self._merger.rest()
        self._kept.rest()

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
        answer, state = self._job.store.advance(
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
            # Another process committed, or the contributions changed meanwhile: look again. A
            # repeated call whose first reply was lost may be STALE and yet be the one that counts.
            if self._job.store.snapshot().weights != weights:
                self._job.channel.drop(*(ref for ref in (weights, outer) if ref))
            return answer in {"MORE", "CHANGED", "STALE"}
        fail_points.reach("after_advance")
        merge_s = time.monotonic() - self._merging_since
        job = self._job
        job.note(job.services.books.note_merge, job.id, snap, contributions, merge_s)
        self._kept.remember(weights, staged.blob)
        stale = self._stale(snap, contributions, state)
        job.later.extend(job.channel.dropping(*stale)).extend(self._news(snap, contributions))
        if state == State.RUN:
            # A tick is not over yet. Otherwise there is nothing to do before the next news, which
            # the owner waits for: the commands that are left go along with that.
            return is_tick or not job.is_owned
        self.rest()
        job.ask_for_plan(snap.head.epoch)
        return True

    def _stale(
        self, snap: Snapshot, contributions: Sequence[Contribution], state: str
    ) -> list[TensorRef]:
        """Return the tensors that are no longer needed now that the job is in ``state``."""
        replaced = [snap.optimizer.get(c.slot, "") for c in contributions if c.optimizer]
        stale = [TensorRef.from_json(t) for t in (*snap.local.values(), *replaced) if t]
        if not (self._job.spec.overlap and state == State.RUN):  # else slots go on from them
            stale += [c.ref for c in contributions]
        return stale + [ref for ref in (snap.weights, snap.outer_state) if ref]

    def _news(self, snap: Snapshot, contributions: Sequence[Contribution]) -> Batch:
        """Return the commands for the event that tells of a merge."""
        if snap.state == State.INIT:
            return self._job.streams.event("init", layout=self._kept.layout().hash)
        samples = sum(c.num_samples for c in contributions)
        return self._job.streams.event(
            "round",
            epoch=snap.head.epoch,
            round=snap.head.round + 1,
            rounds=snap.head.rounds,
            samples=samples,
            loss=sum(c.loss * c.num_samples for c in contributions) / samples,
            version=snap.head.version + 1,
            workers=len({c.worker for c in contributions}),
        )
