"""The round store as participants use it: take a slot, keep its lease alive, hand its work in.

A worker repeats TAKE, BEAT and CONTRIB until it is told to leave. A participant with no work waits
at the *bell*, a stream that rings whenever that may have changed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.store import RoundStore, wait_command
from brokers.state.batch import Batch
from brokers.state.error_mapping import redis_errors
from brokers.tensors.reference import TensorRef

if TYPE_CHECKING:
    from brokers.tensors.parcel import Parcel


class Participation(RoundStore):
    """The live state of one job, for a worker that takes part in it."""

    @property
    def bell_key(self) -> str:
        """The stream that rings whenever waiting participants should ask again."""
        return self._keys[6]

    def take(
        self,
        gen: str,
        *,
        token: str,
        ticket: str,
        stage: str,
        preferred: Sequence[int] = (),
        queue_length: int = 0,
        num_first: int = 0,
        held_ms: int = 0,
        idle_ms: int = 0,
        worker: str = "",
        after: str = "",
        block_ms: int = 0,
    ) -> Work | Wait | Leave:
        """Ask what to do, at once or when the bell has rung; see ``take.lua``.

        Args:
            gen: The generation that the participant joined.
            token: The uuid of this execution.
            ticket: The dispatch that brought it here.
            stage: ``init``, ``train`` or ``validate``.
            preferred: Slots it held before, best first, since their shards and weights are warm.
            queue_length: Messages in its worker's queue, for fairness between jobs.
            num_first: How many of them are for jobs that no worker has served yet.
            held_ms: How long it has held its worker.
            idle_ms: How long it has had nothing to do.
            worker: Name of the worker, for people and the ledger.
            after: Ask when the bell has rung after this id, or the time is over.
            block_ms: How long to wait for the bell.
        """
        answer = self._run(
            "take",
            gen,
            token,
            ticket,
            stage,
            ",".join(map(str, preferred)),
            queue_length,
            held_ms,
            idle_ms,
            worker,
            num_first,
            first=Batch().add(*wait_command(self.bell_key, after, block_ms)) if after else None,
        )
        if answer[0] == "SLOT":
            return Work(
                slot=int(answer[1]),
                rid=answer[2],
                epoch=int(answer[3]),
                round_index=int(answer[4]),
                version=int(answer[5]),
                weights=TensorRef.from_json(answer[6]) if answer[6] else None,
                num_slots=int(answer[7]),
                attempt=int(answer[8]),
                optimizer=answer[9],
                local=answer[10],
                is_copy=answer[11] == "1",
            )
        if answer[0] == "WAIT":
            return Wait(bell=answer[1], is_complete=answer[2] == "1", due_ms=int(answer[3] or 0))
        return Leave(why=answer[1] if answer[0] == "RETURN" else answer[0].lower())

    def leave(self, gen: str, *, token: str, ticket: str) -> None:
        """End this participation, so that the job may have another worker at once."""
        # No job is in this stage: the answer is END, and the participant is off the list.
        self._run("take", gen, token, ticket, "none", "", 0, 0, 0, "", 0)

    def beat(self, gen: str, *, token: str, slot: int, rid: str) -> str:
        """Renew the lease, and return OK, LOST, STOP or GONE."""
        return self._run("beat", gen, token, slot, rid)[0]

    def contribute(
        self, gen: str, rid: str, contribution: Contribution, *, parcel: "Parcel | None" = None
    ) -> tuple[str, Wait | None]:
        """Hand in a slot's work.

        Args:
            gen: The generation that the participant joined.
            rid: The round.
            contribution: The work.
            parcel: The blobs it refers to, if they are still on their way: all goes in one trip.

        Returns:
            OK, STALE, DUPLICATE, LOST, MISSING or GONE; and the answer that TAKE would give now, if
            that is to wait.
        """
        answer = self._run(
            "contrib",
            gen,
            contribution.token,
            rid,
            contribution.slot,
            contribution.cid,
            contribution.to_json(),
            keys=parcel.chunk_keys() if parcel else (),
            parcel=parcel,
        )
        if answer[0] != "OK" or not answer[3]:
            return answer[0], None
        return answer[0], Wait(bell=answer[3], is_complete=int(answer[1]) >= int(answer[2]))

    def wait_for_bell(self, after: str, *, block_ms: int) -> bool:
        """Wait until the bell rings after the given id, and return whether it did in time."""
        with redis_errors(self._where):
            return bool(self._client.xread({self.bell_key: after}, count=1, block=block_ms))
