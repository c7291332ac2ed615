"""The weights that this process has in memory: those of the last merge, and room for the next.

A round begins with the weights that the round before ended with. So the process that merged those
need not fetch them, and it can give them back to a state server that has forgotten them.
"""

from brokers.rounds.snapshot import Snapshot
from brokers.tensors.channel import TensorChannel
from brokers.tensors.reference import TensorRef
from kubeml.errors import Conflict
from kubeml.jobs.checkpoint import Checkpoint, Checkpoints
from kubeml.weights.layout import Layout

#: Weights up to this size are kept in memory until new ones are committed, to be given back to a
#: state server that forgets them during a merge. Of larger weights there is room for only one copy
#: beside the sums, so the merge is written over the old ones.
_KEPT_BYTES = 64 * 2**20


class KeptWeights:
    """The last weights of one job, and its origin, in memory.

    Attributes:
        origin: The checkpoint of epoch 0, once it was read or written.
    """

    def __init__(self, job_id: str, channel: TensorChannel, checkpoints: Checkpoints) -> None:
        self._job_id, self._channel, self._checkpoints = job_id, channel, checkpoints
        self._cached: tuple[TensorRef, bytearray] | None = None
        #: Memory for new weights, taken from weights that are out of date.
        self._spare: bytearray | None = None
        self.origin: Checkpoint | None = None

    def layout(self) -> Layout:
        """Return the layout that the job began with.

        Raises:
            Conflict: The job has not begun.
        """
        if self.origin is None:
            self.origin = self._checkpoints.at(self._job_id, 0)
        if self.origin is None:
            raise Conflict(what=f"job {self._job_id} has no initial checkpoint")
        return self.origin.layout

    def weights(self, snap: Snapshot) -> bytearray:
        """Return the current weights blob, from memory if this process merged it."""
        ref = snap.weights
        if ref is None:
            raise Conflict(what=f"job {self._job_id} has no weights yet")
        if self._cached is None or self._cached[0] != ref:
            self._cached = (ref, self._channel.pull(ref, into=self._spare))
            self._spare = None
        return self._cached[1]

    def room(self, snap: Snapshot, *, with_old: bool) -> bytearray:
        """Return memory for new weights, which belongs to the caller from now on.

        Args:
            snap: The job's state now.
            with_old: Whether it must hold the current weights, to be merged into.
        """
        size = self.layout().weights_bytes
        old = self.weights(snap) if with_old else None
        if size <= _KEPT_BYTES:
            spare = self._spare if self._spare is not None else bytearray(size)
            if old is not None:
                spare[:] = old
            self._spare = None
            return spare
        if old is None:
            old = self._cached[1] if self._cached is not None else self._spare
        self._cached = self._spare = None
        return old if old is not None else bytearray(size)

    def take_back(self, room: bytearray) -> None:
        """Keep ``room`` for the next time, since nothing came of its merge."""
        self._spare = room

    def remember(self, ref: TensorRef, blob: bytearray) -> None:
        """Keep the weights that were just committed, which the next round begins with."""
        if self._cached is not None and len(self._cached[1]) == len(blob):
            self._spare = self._cached[1]
        self._cached = (ref, blob)

    def give_back(self, ref: TensorRef) -> bool:
        """Store weights again that the state server forgot; return whether they were in memory."""
        if self._cached is None or self._cached[0] != ref:
            return False
        self._channel.push(ref.key, self._cached[1], is_passing=True)
        return True

    def forget(self) -> None:
        """Drop the weights, since the job begins a new generation."""
        self._cached = None

    def rest(self) -> None:
        """Give the memory back that only merging needs: no round is under way."""
        self._spare = None
