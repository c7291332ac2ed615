"""The round store as parameter servers use it: hear of work, merge it, share the pool.

A parameter server waits at the *knock*, a stream that tells of every contribution, and commits a
merge by ADVANCE. The scheduler, too, records its dispatches here before it sends them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from brokers.rounds.index import ENDED_TTL_S
from brokers.rounds.snapshot import Knock
from brokers.rounds.store import RoundStore, wait_command
from brokers.state.batch import Batch
from brokers.state.error_mapping import redis_errors
from brokers.state.scripts import run_together
from brokers.tensors.reference import TensorRef

if TYPE_CHECKING:
    from brokers.tensors.parcel import Parcel


class Keeping(RoundStore):
    """The live state of one job, for a process that looks after it."""

    @property
    def _knock_key(self) -> str:
        """The stream that tells parameter servers of every contribution."""
        return self._keys[8]

    def wait_for_knock(self, after: str, *, block_ms: int, first: Batch | None = None) -> Knock:
        """Wait until something is handed in after the given id.

        Args:
            after: The last knock that the caller has heard.
            block_ms: How long to wait at most.
            first: Commands to be carried out before that, in the same trip.
        """
        wait = wait_command(self._knock_key, after, block_ms, count=64)
        with redis_errors(self._where):
            [answer] = run_together(self._client, wait, first=first)
        return Knock.from_answer(answer, after)

    def knock(self) -> None:
        """Wake the parameter servers that wait."""
        with redis_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            pipe.xadd(self._knock_key, {"left": 0}, maxlen=16, approximate=True)
            # The job may have ended meanwhile.
            pipe.expire(self._knock_key, ENDED_TTL_S)
            pipe.execute()

    def advance(
        self,
        gen: str,
        rid: str,
        new_rid: str,
        *,
        weights: TensorRef,
        outer_state: TensorRef | None,
        cids: Sequence[str],
        ledger: str,
        parcel: "Parcel | None" = None,
    ) -> tuple[str, str]:
        """Commit a merge.

        Returns OK, STALE, MORE, CHANGED, MISSING or GONE; and the job's state after it.

        Args:
            gen: The job's generation.
            rid: The uuid of the round that was merged.
            new_rid: The uuid of the next round.
            weights: The new weights, staged.
            outer_state: The outer optimizer's state that goes with them.
            cids: The contributions that were merged, in slot order.
            ledger: The round's entry in the ledger.
            parcel: The staged blobs, if they are still on their way: all goes in one trip.
        """
        staged = weights.chunk_keys() + (outer_state.chunk_keys() if outer_state else [])
        outer = outer_state.to_json() if outer_state else ""
        answer = self._run(
            "advance",
            gen,
            rid,
            new_rid,
            weights.to_json(),
            outer,
            ",".join(cids),
            ledger,
            keys=staged,
            parcel=parcel,
        )
        return answer[0], answer[1] if len(answer) > 1 else ""

    def acquire(self, gen: str, owner: str, *, ttl_ms: int) -> bool:
        """Return whether ``owner`` is to look after the job for the next ``ttl_ms``."""
        return self._run("acquire", gen, owner, ttl_ms)[0] == "OK"

    def send(self, gen: str, ticket: str, *, burst: int) -> str:
        """Record a dispatch before it is sent, and return OK, FULL, IDLE or GONE."""
        return self._run("send", gen, ticket, burst)[0]

    def share(
        self, gen: str, *, most: int | None, credit_ms: float, lean: int, at_ms: float, used_ms: int
    ) -> None:
        """Set how many workers the job is to have for now, with the books behind that.

        Args:
            gen: The job's generation.
            most: How many workers; None: any number.
            credit_ms: What it was due and did not have, in worker-milliseconds.
            lean: Whether it is to have more than its share (1), less (-1), or just that (0).
            at_ms: The end of the time that these books cover, by the server's clock.
            used_ms: The worker time that the job had had by then.
        """
        allot = "" if most is None else most
        self._run("share", gen, allot, round(credit_ms), lean, round(at_ms), used_ms)
