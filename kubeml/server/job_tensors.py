"""Keeps alive, misses and restores the blobs without which a job cannot go on."""

import logging
import time
from contextlib import suppress

from brokers.rounds.contribution import Contribution
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.store import RoundStore
from brokers.tensors.channel import TensorChannel
from brokers.tensors.chunks import TTL_S
from brokers.tensors.reference import TensorRef
from kubeml.errors import MalformedMessage
from kubeml.jobs.spec import State
from kubeml.server.kept_weights import KeptWeights

logger = logging.getLogger(__name__)

#: How long blobs live that were secured before a stack was stopped.
_SECURED_S = 7 * 24 * 3600


class JobTensors:
    """Weights, optimizer states and local weights of one job, as its parameter server sees them.

    Args:
        store: The job's round store.
        channel: The channel to the blobs.
        kept: The last weights, in memory.
    """

    def __init__(self, store: RoundStore, channel: TensorChannel, kept: KeptWeights) -> None:
        self._store, self._channel, self._kept = store, channel, kept
        self._kept_at = 0.0

    def secure(self) -> None:
        """Let the state server write blobs to its file that it would forget; at this process's end.

        The servers may be stopped next. These are the blobs without which the job cannot go on: the
        weights, and with ``--overlap`` the slots' local weights.
        """
        snap = self._store.snapshot()
        if State(snap.state or State.DONE).is_final or snap.weights is None:
            return
        self._channel.push(snap.weights.key, self._kept.weights(snap), ttl_s=_SECURED_S)
        for text in snap.local.values():
            ref = TensorRef.from_json(text)
            self._channel.push(ref.key, self._channel.pull(ref), ttl_s=_SECURED_S)

    def has_lost(self, snap: Snapshot) -> bool:
        """Return whether tensors are gone that the job's present state refers to."""
        if all(self._channel.has(ref) for ref in self.references(snap)):
            return False
        # Another parameter server may have advanced and dropped them since the snapshot.
        return self._store.head().rid == snap.rid

    def restore(self, snap: Snapshot) -> bool:
        """Give the state server back the weights that it forgot; return whether that is enough."""
        ref = snap.weights
        if ref is None or self._channel.has(ref) or not self._kept.give_back(ref):
            return False
        logger.warning("job %s: its weights were lost, and are restored", self._store.job_id)
        return not self.has_lost(snap)

    def references(self, snap: Snapshot) -> list[TensorRef]:
        """Return the blobs the job needs to go on: weights, optimizer states, local weights."""
        refs = [ref for ref in (snap.weights, snap.outer_state) if ref]
        texts = (*snap.optimizer.values(), *snap.local.values())
        return refs + [TensorRef.from_json(text) for text in texts]

    def keep_alive(self, snap: Snapshot) -> None:
        """Renew the TTL of every blob the job refers to, now and then."""
        if time.monotonic() - self._kept_at < TTL_S / 5:
            return
        self._kept_at = time.monotonic()
        refs = self.references(snap)
        for text in snap.contributions.values():
            # A malformed contribution is kicked when its round is complete.
            with suppress(MalformedMessage):
                contribution = Contribution.from_json(text)
                texts = (contribution.tensors, contribution.optimizer)
                refs += [TensorRef.from_json(t) for t in texts if t]
        self._channel.keep(*refs)
