"""From a round's contributions to merged weights: read them, check them, kick the bad one, fold."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from brokers import fail_points
from brokers.protocol import Contribution, TensorRef
from brokers.refusals import note_refused
from brokers.round_store import RoundStore, Snapshot
from brokers.streams import JobStreams
from brokers.tensor_channel import TensorChannel
from kubeml import initial
from kubeml.checkpoint import Checkpoint, Checkpoints
from kubeml.contributions import require_layout
from kubeml.errors import (
    ChunksMissing,
    Conflict,
    Corrupted,
    KubemlError,
    MalformedMessage,
    MergeRefused,
)
from kubeml.job import JobSpec
from kubeml.layout import Layout
from kubeml.merge import Merged, Merger, Outer

if TYPE_CHECKING:
    from redis import Redis


class RoundMerger:
    """Merges the rounds of one job. It keeps the last weights, and the job's origin, in memory."""

    def __init__(
        self,
        store: RoundStore,
        channel: TensorChannel,
        streams: JobStreams,
        checkpoints: Checkpoints,
        client: "Redis",
    ) -> None:
        self._store, self._channel, self._streams = store, channel, streams
        self._checkpoints, self._client = checkpoints, client
        self._cached: tuple[TensorRef, bytearray] | None = None
        #: The checkpoint of epoch 0, once it was read or written.
        self.origin: Checkpoint | None = None

    def contributions(self, snap: Snapshot) -> list[Contribution] | None:
        """The round's contributions in slot order; None if one was bad and is kicked."""
        read = []
        for slot in range(snap.number("want")):
            text = snap.contributions.get(slot, "")
            try:
                read.append(Contribution.from_json(text))
            except MalformedMessage as err:
                try:
                    who = str(json.loads(text).get("cid", ""))
                except ValueError:
                    who = ""
                self._refuse(snap, slot, who, err)
                return None
        return read

    def initial(self, snap: Snapshot, contribution: Contribution) -> Merged | None:
        """Take over the initial weights, and record them as the checkpoint of epoch 0."""
        try:
            blob = self._channel.pull(contribution.ref)
            layout, weights, frozen = initial.unpack(blob)
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
        self.origin = self._checkpoints.publish(checkpoint, 0)
        # Another parameter server may have been first: its weights are the initial ones then.
        first = self._checkpoints.tensors(self.origin.weights)
        return Merged(weights=bytearray(first), outer_state=None)

    def merge(
        self, snap: Snapshot, contributions: Sequence[Contribution], spec: JobSpec
    ) -> Merged | None:
        """Merge a round; None if a contribution was bad and is kicked."""
        layout = self.layout()
        total = sum(c.num_samples for c in contributions)
        merger = Merger(layout, total_samples=total)
        for contribution in contributions:
            try:
                require_layout(contribution, layout)
                blob = self._channel.pull(contribution.ref)
                merger.add(contribution.slot, blob, num_samples=contribution.num_samples)
                fail_points.reach("aggregating", slot=contribution.slot)
            except (ChunksMissing, Corrupted, MalformedMessage, MergeRefused) as err:
                self._refuse(snap, contribution.slot, contribution.cid, err)
                return None
        outer = Outer(name=spec.outer, lr=spec.outer_lr, momentum=spec.outer_momentum)
        state = self._channel.pull(snap.outer_state) if snap.outer_state else None
        return merger.finish(self.weights(snap), outer, state)

    def _refuse(self, snap: Snapshot, slot: int, cid: str, err: KubemlError) -> None:
        why = f"{err}" + (f"\nhint: {err.hint}" if err.hint else "")
        answer = self._store.kick(snap.gen, snap.rid, slot=slot, who=cid, kind="bad", why=why)
        note_refused(
            self._client, "contribution", f"job {self._store.job_id}: slot {slot} ({answer}): {err}"
        )
        self._streams.emit(
            "retry", epoch=snap.number("epoch"), round=snap.number("round"), slot=slot, why=str(err)
        )

    def remember(self, ref: TensorRef, blob: bytearray) -> None:
        """Keep the weights that were just committed, which the next round begins with."""
        self._cached = (ref, blob)

    def forget(self) -> None:
        """Drop them: the job begins a new generation."""
        self._cached = None

    def layout(self) -> Layout:
        """The layout that the job began with.

        Raises:
            Conflict: It has not begun.
        """
        if self.origin is None:
            self.origin = self._checkpoints.at(self._store.job_id, 0)
        if self.origin is None:
            raise Conflict(what=f"job {self._store.job_id} has no initial checkpoint")
        return self.origin.layout

    def weights(self, snap: Snapshot) -> bytearray:
        """The current weights blob, from memory if this process merged it."""
        ref = snap.weights
        if ref is None:
            raise Conflict(what=f"job {self._store.job_id} has no weights yet")
        if self._cached is None or self._cached[0] != ref:
            self._cached = (ref, self._channel.pull(ref))
        return self._cached[1]
