"""Makes merged weights of a round's contributions: reads, checks and folds them, kicks bad ones."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from brokers import fail_points
from brokers.pool.refusals import note_refused
from brokers.rounds.contribution import Contribution
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.store import RoundStore
from brokers.rounds.streams import JobStreams
from brokers.tensors.channel import TensorChannel
from brokers.tensors.chunks import CHUNK_BYTES, is_whole
from brokers.tensors.parcel import Parcel
from brokers.tensors.reference import TensorRef
from brokers.wire import new_id
from kubeml.errors import (
    ChunksMissing,
    Corrupted,
    KubemlError,
    MalformedMessage,
    MergeRefused,
    NonFinite,
)
from kubeml.jobs.checkpoint import Checkpoint, Checkpoints
from kubeml.jobs.spec import JobSpec
from kubeml.server.contributions import require_layout
from kubeml.server.kept_weights import KeptWeights
from kubeml.weights.layout import unpack_initial
from kubeml.weights.merge import Feed, Merger
from kubeml.weights.outer_optimizer import Outer
from kubeml.weights.runs import NotFinite
from kubeml.weights.wire_format import WireFormat

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True, kw_only=True)
class Staged:
    """New weights on the state server, to be committed.

    Attributes:
        weights: The reference to the weights blob.
        blob: The same blob, in memory.
        outer_state: The reference to the outer optimizer's state; None if it has none.
        parcel: The parcel they were sent with, if they are still on their way.
    """

    weights: TensorRef
    blob: bytearray
    outer_state: TensorRef | None
    parcel: Parcel | None = None

    def close(self) -> None:
        """Close the parcel, without waiting for it."""
        if self.parcel is not None:
            self.parcel.close()


class RoundMerger:
    """Merges the rounds of one job, from the weights that are kept in memory."""

    def __init__(
        self,
        store: RoundStore,
        channel: TensorChannel,
        streams: JobStreams,
        checkpoints: Checkpoints,
        client: "Redis",
        kept: KeptWeights,
    ) -> None:
        self._store, self._channel, self._streams = store, channel, streams
        self._checkpoints, self._client, self._kept = checkpoints, client, kept
        self._merger: tuple[str, Merger] | None = None
        #: The contributions in the merger's sums: the round, and slot to contribution.
        self._folded: tuple[str, dict[int, str]] = ("", {})

    def contributions(self, snap: Snapshot) -> list[Contribution] | None:
        """Return the round's contributions in slot order; None if one was bad and was kicked."""
        read = []
        for slot in range(snap.head.want):
            contribution = self._contribution(snap, slot)
            if contribution is None:
                return None
            read.append(contribution)
        return read

    def _contribution(self, snap: Snapshot, slot: int) -> Contribution | None:
        text = snap.contributions.get(slot, "")
        try:
            return Contribution.from_json(text)
        except MalformedMessage as err:
            try:
                who = str(json.loads(text).get("cid", ""))
            except ValueError:
                who = ""
            self._refuse(snap, slot, who, err)
            return None

    def initial(self, snap: Snapshot, contribution: Contribution) -> Staged | None:
        """Take over the initial weights, and record them as the checkpoint of epoch 0."""
        try:
            blob = self._channel.pull(contribution.ref)
            layout, weights, frozen = unpack_initial(blob)
        except (ChunksMissing, Corrupted, MalformedMessage) as err:
            self._refuse(snap, 0, contribution.cid, err)
            return None
        checkpoint = Checkpoint(
            job_id=self._store.job_id,
            epoch=0,
            version=1,
            layout=layout,
            weights=self._checkpoints.put_weights(self._store.job_id, layout, weights),
            frozen=self._checkpoints.put_frozen(self._store.job_id, layout, frozen),
            outer_state=None,
            optimizer={},
        )
        self._kept.origin = self._checkpoints.publish(checkpoint, 0)
        if self._kept.origin.weights != checkpoint.weights:
            # Another parameter server was first: its weights are the initial ones.
            weights = self._checkpoints.tensors(self._kept.origin.weights)
        first = bytearray(weights)
        del blob, weights, frozen  # a large model must not be held twice
        ref = self._channel.push(self._store.key("w", new_id()), first)
        return Staged(weights=ref, blob=first, outer_state=None)

    @property
    def folds_early(self) -> bool:
        """Whether contributions are large enough to be folded before the round is complete."""
        return self._kept.origin is not None and self._kept.layout().weights_bytes > CHUNK_BYTES

    def fold_early(self, snap: Snapshot, spec: JobSpec) -> None:
        """Fold the contributions that an incomplete round has so far, if their order allows it.

        The last contribution is left to ``merge``.
        """
        merger, folded = self._of(spec), self._folded_of(snap)
        while len(folded) < snap.head.want - 1:
            slot = next((s for s in sorted(snap.contributions) if merger.may_fold(s)), None)
            if slot is None:
                return
            contribution = self._contribution(snap, slot)
            if contribution is None or not self._fold(snap, contribution, spec):
                return

    def merge(
        self, snap: Snapshot, contributions: Sequence[Contribution], spec: JobSpec
    ) -> Staged | None:
        """Merge a round and stage new weights; None if a contribution was bad and was kicked."""
        folded = self._folded_of(snap)
        if any(folded[c.slot] != c.cid for c in contributions if c.slot in folded):
            self._begin(snap)  # a folded contribution was kicked, and another one has come
        left = [c for c in contributions if c.slot not in self._folded_of(snap)]
        for contribution in left[:-1]:
            if not self._fold(snap, contribution, spec):
                return None
        return self._finish(snap, contributions, left[-1], spec)

    def _folded_of(self, snap: Snapshot) -> dict[int, str]:
        """Return the contributions of this round that are folded."""
        if self._folded[0] != snap.rid:
            self._begin(snap)
        return self._folded[1]

    def _begin(self, snap: Snapshot) -> None:
        self._folded = (snap.rid, {})
        if self._merger is not None:
            self._merger[1].begin()

    def _fold(self, snap: Snapshot, contribution: Contribution, spec: JobSpec) -> bool:
        """Fold one contribution; return False if it was bad and was kicked."""
        merger = self._of(spec)
        feed = merger.fold(contribution.slot, contribution.num_samples)
        if not self._read(snap, contribution, spec, feed, feed):
            return False
        self._folded[1][contribution.slot] = contribution.cid
        return True

    def _finish(
        self,
        snap: Snapshot,
        contributions: Sequence[Contribution],
        last: Contribution,
        spec: JobSpec,
    ) -> Staged | None:
        """Fold the last contribution and stage new weights, piece by piece."""
        merger = self._of(spec)
        outer = Outer(name=spec.outer, lr=spec.outer_lr, momentum=spec.outer_momentum)
        state = merger.new_outer_state(outer)
        if state is not None and snap.outer_state:
            state = self._channel.pull(snap.outer_state, into=state)
        into = self._kept.room(snap, with_old=merger.needs_weights(outer))
        feed = merger.finish(last.slot, last.num_samples, into=into, outer=outer, outer_state=state)
        parcel = self._channel.parcel()
        staging = parcel.stage(self._store.key("w", new_id()), into, is_passing=True)

        def take(piece: memoryview) -> None:
            feed(piece)
            staging.send(feed.num_ready)

        try:
            is_good = self._read(snap, last, spec, feed, take)
        except NotFinite:
            self._begin(snap)
            is_good = False
            self._blame(snap, contributions, spec)
        except BaseException:
            parcel.close()
            raise
        if not is_good:
            parcel.abandon()
            self._kept.take_back(into)
            return None
        # The round of these sums is over, whatever becomes of the new weights.
        self._folded = ("", {})
        weights = staging.send()
        staged = None
        if state is not None:
            staged = parcel.add(self._store.key("w", new_id()), state)
        return Staged(weights=weights, blob=into, outer_state=staged, parcel=parcel)

    def _read(
        self,
        snap: Snapshot,
        contribution: Contribution,
        spec: JobSpec,
        feed: Feed,
        take: Callable[[memoryview], None],
    ) -> bool:
        """Read a contribution's pieces; return False if it was bad and was kicked."""
        try:
            layout = self._kept.layout()
            require_layout(contribution, layout, WireFormat(spec.wire).num_bytes(layout))
            ref = contribution.ref
            small = snap.blobs.get(ref.chunk_keys()[0])
            if small is not None and is_whole(small, ref):
                take(memoryview(small))
            else:
                self._channel.read(ref, take)
            feed.close()
            fail_points.reach("aggregating", slot=contribution.slot)
        except (ChunksMissing, Corrupted, MalformedMessage, MergeRefused) as err:
            self._begin(snap)
            self._refuse(snap, contribution.slot, contribution.cid, err)
            return False
        except BaseException:
            self._begin(snap)
            raise
        return True

    def _blame(self, snap: Snapshot, contributions: Sequence[Contribution], spec: JobSpec) -> None:
        """Kick the first contribution that is not finite."""
        merger = self._of(spec)
        for contribution in contributions:
            feed = merger.require_finite(contribution.slot)
            if not self._read(snap, contribution, spec, feed, feed):
                return
        # Each is finite, yet their sum is not: only enormous float64 weights do that.
        last = contributions[-1]
        err = NonFinite(slot=last.slot, tensor="(the sum of all slots)")
        self._refuse(snap, last.slot, last.cid, err)

    def _of(self, spec: JobSpec) -> Merger:
        layout = self._kept.layout()
        key = f"{layout.hash} {spec.wire}"
        if self._merger is None or self._merger[0] != key:
            self._merger = (key, Merger(layout, WireFormat(spec.wire)))
        return self._merger[1]

    def _refuse(self, snap: Snapshot, slot: int, cid: str, err: KubemlError) -> None:
        why = f"{err}" + (f"\nhint: {err.hint}" if err.hint else "")
        answer = self._store.kick(snap.gen, snap.rid, slot=slot, who=cid, kind="bad", why=why)
        note_refused(
            self._client, "contribution", f"job {self._store.job_id}: slot {slot} ({answer}): {err}"
        )
        self._streams.emit(
            "retry", epoch=snap.head.epoch, round=snap.head.round, slot=slot, why=str(err)
        )

    def rest(self) -> None:
        """Give back the memory that only merging needs, while no round is under way."""
        self._merger = None
        self._folded = ("", {})
