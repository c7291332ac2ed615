"""Builds a job's live state: from its spec, or after a loss from its last checkpoint.

A client builds the first generation, a parameter server those after it. This is the one recovery
path for everything unexpected: whatever is wrong with a job's live state, a new *generation* is
built from S3. Its number is claimed by a create-only object, so one rebuilder wins. Participants
and parameter servers of the old generation are answered GONE.
"""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from brokers.rounds.head import Head
from brokers.rounds.store import RoundStore
from brokers.rounds.streams import JobStreams
from brokers.settings import Settings
from brokers.tensors.channel import TensorChannel
from brokers.wire import new_id
from kubeml.jobs.checkpoint import Checkpoint, Checkpoints
from kubeml.jobs.records import JobRecords
from kubeml.jobs.scale import Scale
from kubeml.jobs.spec import JobSpec, State

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

#: How often one slot may be lost in one round before the job is called poisonous.
MAX_LOST = 10


class Generations:
    """Builds the live state of jobs."""

    def __init__(
        self, settings: Settings, client: "Redis", records: JobRecords, checkpoints: Checkpoints
    ) -> None:
        self._settings = settings
        self._client = client
        self._records = records
        self._checkpoints = checkpoints
        self._channel = TensorChannel(client)

    def begin(self, spec: JobSpec) -> None:
        """Build the first generation of a job whose spec was just written."""
        self._records.next_generation(spec.id, why="submitted")
        head = self._head(spec, Scale.of(spec), life=0)
        self._store(spec.id).init(1, birth=new_id(), fields=head.to_fields())

    def rebuild(self, job_id: str, *, why: str, seen: str = "") -> bool:
        """Build the next generation from the last checkpoint, if this process wins the claim.

        Args:
            job_id: The job.
            why: The reason, for the job's events and the log.
            seen: The generation that was found damaged; "" if there was no head. If there is
                another generation by now, another process was faster, and that one stays.

        Returns:
            Whether it did. Work since that checkpoint is trained again, by other tokens.

        Raises:
            JobNotFound: There is no spec: the submission died half-way.
        """
        life = self._records.life(job_id)
        spec = self._records.spec(job_id, life)
        # The process that took the job's last life off the list may have died before it noticed
        # this life.
        self._records.put_back(job_id)
        number = self._records.next_generation(job_id, why=why)
        if number is None:
            return False
        checkpoint = self._checkpoints.latest(job_id)
        head = self._head(spec, self._records.scale(spec), life=life)
        fields = self._restored(head, checkpoint) if checkpoint else head.to_fields()
        built = self._store(job_id).init(number, birth=new_id(), fields=fields, seen=seen)
        if built:
            epoch = checkpoint.epoch if checkpoint else 0
            JobStreams(self._client, job_id).emit("rebuilt", gen=number, epoch=epoch, why=why)
            logger.warning(
                "job %s: rebuilt as generation %d from epoch %d: %s", job_id, number, epoch, why
            )
        return built

    def _store(self, job_id: str) -> RoundStore:
        return RoundStore(self._client, job_id)

    def _head(self, spec: JobSpec, scale: Scale, *, life: int) -> Head:
        """Return the head of a job whose weights one worker is to initialise, in one round."""
        return Head(
            life=life,
            state=State.INIT,
            rid=new_id(),
            rounds=1,
            slots=1,
            want=1,
            lease_ms=int(self._settings.lease_s * 1000),
            max_errors=spec.max_errors,
            max_lost=MAX_LOST,
            device=spec.device,
            overlap=spec.overlap,
            scale=scale.number,
            floor=scale.floor,
            ceiling=scale.ceiling,
            max_workers=scale.max_workers,
            weight=spec.priority,
            # With `local` a copy would lack the state that the other process keeps.
            hedge=spec.hedge and spec.optimizer_state != "local",
        )

    def _restored(self, head: Head, checkpoint: Checkpoint) -> dict[str, str]:
        """Return the fields of a head that goes on after a checkpoint, with optimizer states."""
        store = self._store(checkpoint.job_id)
        blob = self._checkpoints.tensors(checkpoint.weights)
        weights = self._channel.push(store.key("w", new_id()), blob)
        outer = ""
        if checkpoint.outer_state:
            momentum = self._checkpoints.blob(checkpoint.outer_state)
            outer = self._channel.push(store.key("w", new_id()), momentum).to_json()
        fields = replace(
            head,
            # The job goes on as if that epoch had just been trained: it may have been the last one,
            # or have reached the goal. Its history row exists, since it is written before that.
            state=State.END if checkpoint.epoch else State.PLAN,
            epoch=checkpoint.epoch,
            version=checkpoint.version,
            weights=weights.to_json(),
            outer_state=outer,
            layout=checkpoint.layout.hash,
        ).to_fields()
        for slot, stored in checkpoint.optimizer.items():
            state = self._checkpoints.blob(stored)
            fields[f"o:{slot}"] = self._channel.push(store.key("o", new_id()), state).to_json()
        return fields
