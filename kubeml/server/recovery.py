"""Restores what a job has lost, from memory, or builds it anew from its last checkpoint.

Messages get lost too. The repairs of each tick are here, so that training goes on all the same.
"""

import logging

from brokers.rounds.snapshot import Snapshot
from kubeml.errors import BackendUnreachable, KubemlError
from kubeml.jobs.generations import Generations
from kubeml.jobs.spec import State
from kubeml.server.dispatch_watch import DispatchWatch
from kubeml.server.job_in_hand import JobInHand
from kubeml.server.job_tensors import JobTensors
from kubeml.server.kept_weights import KeptWeights

logger = logging.getLogger(__name__)


class Recovery:
    """Repairs one job.

    Args:
        job: The job.
        tensors: The blobs that it cannot go on without.
        kept: The job's weights, in memory.
    """

    def __init__(self, job: JobInHand, tensors: JobTensors, kept: KeptWeights) -> None:
        self._job, self._tensors, self._kept = job, tensors, kept
        backends = job.backends
        self._generations = Generations(
            backends.settings, backends.redis, backends.records, backends.checkpoints
        )
        self._watch = DispatchWatch(backends.dispatcher, job.store, job.id)

    def recover(self, snap: Snapshot, err: KubemlError) -> bool:
        """Restore tensors that the job refers to and that are gone, or go back to a checkpoint.

        Returns:
            Whether something could be done about ``err``.
        """
        if not self._tensors.has_lost(snap):
            return False
        if self._tensors.restore(snap):
            return True
        if snap.head.stop:
            # The job was asked to stop: its last checkpoint is all there is to keep.
            reason = "stopped by the user"
            self._job.store.finish(snap.gen, snap.rid, "", to=State.STOPPED, reason=reason)
            return True
        return self.revive(why=str(err), seen=snap.gen)

    def revive(self, *, why: str, seen: str = "") -> bool:
        """Rebuild the job unless it has ended; its live state expires some time after its end.

        Args:
            why: The reason, for the job's events and the log.
            seen: The generation that was found damaged; "" if there was no live state.

        Returns:
            Whether the job is alive.
        """
        job = self._job
        if job.records.end(job.id) is not None:
            job.store.forget()
            job.records.deactivate(job.id)
            return False
        is_ours = self._generations.rebuild(job.id, why=why, seen=seen)
        self._kept.forget()
        if is_ours and (snap := job.read()).state in {State.INIT, State.PLAN}:
            job.ask_for_plan(snap.head.epoch + 1)
        return True

    def repair(self, snap: Snapshot) -> None:
        """See to the job's tensors, its share of the pool, and its messages; on every tick."""
        if self._tensors.has_lost(snap) and not self._tensors.restore(snap):
            self.revive(why="some of its tensors were lost", seen=snap.gen)
            return
        self._tensors.keep_alive(snap)
        job, backends = self._job, self._job.backends
        job.services.sharing.update(job.store, snap.gen)
        try:
            waiting, _ = backends.dispatcher.queue_lengths(backends.broker, job.spec.device)
            self._watch.repair(snap, job.spec, queue_length=waiting)
        except BackendUnreachable as err:
            # Training goes on without the broker: who takes part needs no more messages.
            logger.warning("job %s: nothing can be dispatched: %s", job.id, err)
