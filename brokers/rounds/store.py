"""The round store: one job's live state on the state server, changed only by its Lua scripts.

Every method is one script (or a read) and may be repeated with the same arguments: redis-py
re-sends a command whose reply was lost. The rules are in ``lua/*.lua``; this module gives them
names and types.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.index import ENDED_KEY, ENDED_TTL_S, JOBS_KEY
from brokers.rounds.snapshot import Knock, Ledger, Snapshot
from brokers.state.batch import Batch
from brokers.state.error_mapping import redis_errors
from brokers.state.scripts import as_texts, command, run_together
from brokers.tensors.reference import TensorRef
from brokers.wire import as_fields, as_text, to_bytes

if TYPE_CHECKING:
    from redis import Redis

    from brokers.tensors.parcel import Parcel

#: So many failed attempts of an epoch are noted, see ``note_failed`` in ``lua/_prelude.lua``.
_MAX_FAILED = 500

#: Of a longer reason (a traceback, mostly) the rest is left out.
_MAX_REASON_CHARS = 20_000


class RoundStore:
    """The live state of one job."""

    def __init__(self, client: "Redis", job_id: str, *, where: str = "the state server") -> None:
        self.job_id = job_id
        self._client = client
        self._where = where
        self._prefix = f"kml:{{{job_id}}}"
        self._keys = [f"{self._prefix}:{name}" for name in "hscpdoxgkl"]

    def key(self, *parts: object) -> str:
        """A key of this job, under its hash tag."""
        return ":".join([self._prefix, *map(str, parts)])

    @property
    def bell_key(self) -> str:
        """The stream that rings whenever waiting participants should ask again."""
        return self._keys[6]

    @property
    def _knock_key(self) -> str:
        """The stream that tells parameter servers of every contribution."""
        return self._keys[8]

    # -- life of a job -----------------------------------------------------------------------

    def init(self, gen: int, *, birth: str, fields: Mapping[str, object], seen: str = "") -> bool:
        """Build the head unless one of this generation or a later one is there.

        Args:
            gen: Generation: 1, and one more each time the job is rebuilt from S3.
            birth: A uuid that makes repeating this call harmless.
            fields: The head's other fields.
            seen: The generation that the caller saw, "" for no head: another one stays.

        Returns:
            Whether the head is now this one.
        """
        flat = [str(part) for item in fields.items() for part in item]
        answer = self._run("init", gen, seen, "birth", birth, *flat)
        if answer[0] == "OK":
            self.enlist()
        return answer[0] == "OK"

    def enlist(self) -> None:
        """Put a job that is under way on the pool's list of jobs, as it may not be.

        Who retired its last life and was held up may take it off after the next one was begun: the
        list is another slot's of a cluster than the job, and no script changes both.
        """
        with redis_errors(self._where):
            run_together(
                self._client, ["SADD", JOBS_KEY, self.job_id], ["ZREM", ENDED_KEY, self.job_id]
            )

    def plan(
        self,
        gen: str,
        rid: str,
        new_rid: str,
        *,
        epoch: int,
        slots: int,
        rounds: int,
        want: int,
        last_want: int,
        validation_slots: int,
        decision: str,
        expected_s: float | None = None,
    ) -> str:
        """PLAN → RUN: begin an epoch. OK, STALE or GONE."""
        expected = "" if expected_s is None else expected_s
        args = (epoch, slots, rounds, want, last_want, validation_slots, decision, expected)
        return self._run("plan", gen, rid, new_rid, *args)[0]

    def finish(self, gen: str, rid: str, new_rid: str, *, to: str, reason: str = "") -> str:
        """Close an epoch (to PLAN) or the job (DONE, STOPPED, FAILED). OK, STALE, MORE or GONE."""
        text = to_bytes(reason, max_chars=_MAX_REASON_CHARS)
        return self._run("finish", gen, rid, new_rid, to, text)[0]

    def stop(self, gen: str) -> str:
        """Ask the job to end. OK, FINAL or GONE."""
        return self._run("stop", gen)[0]

    def scale(self, gen: str, number: int, floor: int, ceiling: int, max_workers: int) -> str:
        """Set what N and W may be, unless a later one did. OK, FINAL or GONE."""
        return self._run("scale", gen, number, floor, ceiling, max_workers)[0]

    def retire(self, gen: str) -> None:
        """Forget a finished job's working state at once, and its head after a while."""
        with redis_errors(self._where):
            for key in (self.key("log"), self.key("ev")):
                self._client.expire(key, ENDED_TTL_S)
        if self._run("retire", gen, ENDED_TTL_S)[0] != "OK":
            return
        with redis_errors(self._where):
            self._client.zadd(ENDED_KEY, {self.job_id: time.time()})
            # Last: as long as it stands there, a keeper will finish what was begun here.
            self._client.srem(JOBS_KEY, self.job_id)

    def forget(self) -> None:
        """Remove every trace of a job from the state server (but not its expiring chunks)."""
        with redis_errors(self._where):
            self._client.srem(JOBS_KEY, self.job_id)
            self._client.zrem(ENDED_KEY, self.job_id)
            self._client.delete(*self._keys, self.key("log"), self.key("ev"))

    # -- participants ------------------------------------------------------------------------

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
            gen: Generation the participant joined.
            token: uuid of this execution.
            ticket: The dispatch that brought it here.
            stage: ``init``, ``train`` or ``validate``.
            preferred: Slots it held before, best first (their shards and weights are warm).
            queue_length: Messages in its worker's queue, for fairness between jobs.
            num_first: Those of them for jobs that nobody has worked for yet.
            held_ms: For how long it has held its worker.
            idle_ms: For how long it has had nothing to do.
            worker: Name of the worker, for people and the ledger.
            after: Ask when the bell has rung after this id, or the time is over.
            block_ms: How long to wait for it.
        """
        answer = self._run(
            "take",
            gen, token, ticket, stage, ",".join(map(str, preferred)), queue_length, held_ms,
            idle_ms, worker, num_first,
            first=Batch().add(*_wait(self.bell_key, after, block_ms)) if after else None,
        )  # fmt: skip
        if answer[0] == "SLOT":
            return Work(
                slot=int(answer[1]), rid=answer[2], epoch=int(answer[3]),
                round_index=int(answer[4]), version=int(answer[5]),
                weights=TensorRef.from_json(answer[6]) if answer[6] else None,
                num_slots=int(answer[7]), attempt=int(answer[8]), optimizer=answer[9],
                local=answer[10], is_copy=answer[11] == "1",
            )  # fmt: skip
        if answer[0] == "WAIT":
            return Wait(bell=answer[1], is_complete=answer[2] == "1", due_ms=int(answer[3] or 0))
        return Leave(why=answer[1] if answer[0] == "RETURN" else answer[0].lower())

    def leave(self, gen: str, *, token: str, ticket: str) -> None:
        """Be a participant no more: the job may have somebody else at once."""
        # A stage that no job is in: END, and off the list.
        self._run("take", gen, token, ticket, "none", "", 0, 0, 0, "", 0)

    def beat(self, gen: str, *, token: str, slot: int, rid: str) -> str:
        """Renew the lease. OK, LOST, STOP or GONE."""
        return self._run("beat", gen, token, slot, rid)[0]

    def contribute(
        self, gen: str, rid: str, contribution: Contribution, *, parcel: "Parcel | None" = None
    ) -> tuple[str, Wait | None]:
        """Hand in a slot's work.

        Args:
            gen: Generation the participant joined.
            rid: The round.
            contribution: The work.
            parcel: The blobs it refers to, on their way: all of it goes in one trip.

        Returns:
            OK, STALE, DUPLICATE, LOST, MISSING or GONE; and what TAKE would answer now, if that is
            to wait.
        """
        answer = self._run(
            "contrib",
            gen, contribution.token, rid, contribution.slot, contribution.cid,
            contribution.to_json(),
            keys=parcel.chunk_keys() if parcel else (),
            parcel=parcel,
        )  # fmt: skip
        if answer[0] != "OK" or not answer[3]:
            return answer[0], None
        return answer[0], Wait(bell=answer[3], is_complete=int(answer[1]) >= int(answer[2]))

    def kick(self, gen: str, rid: str, *, slot: int, who: str, kind: str, why: str) -> str:
        """Drop a contribution (kind bad, who = cid) or a lease (error, drain; who = token)."""
        text = to_bytes(why, max_chars=_MAX_REASON_CHARS)
        return self._run("kick", gen, rid, slot, who, kind, text)[0]

    def wait_for_bell(self, after: str, *, block_ms: int) -> bool:
        """Return when the bell has rung after the given id, or the time is over; whether it has."""
        with redis_errors(self._where):
            return bool(self._client.xread({self.bell_key: after}, count=1, block=block_ms))

    # -- parameter server --------------------------------------------------------------------

    def wait_for_knock(self, after: str, *, block_ms: int, first: Batch | None = None) -> Knock:
        """Wait until something was handed in after the given id.

        Args:
            after: The last knock that the caller has heard.
            block_ms: How long to wait.
            first: Commands to be carried out before, in the same trip.
        """
        wait = _wait(self._knock_key, after, block_ms, count=64)
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
        """Commit a merge: (OK, STALE, MORE, CHANGED, MISSING or GONE; the state after it).

        Args:
            gen: The job's generation.
            rid: The round that was merged.
            new_rid: The next round's.
            weights: The new weights, staged.
            outer_state: The outer optimizer's state that goes with them.
            cids: The contributions that were merged, in slot order.
            ledger: The round's entry in the ledger.
            parcel: The staged blobs, if they are still on their way: all of it goes in one trip.
        """
        staged = weights.chunk_keys() + (outer_state.chunk_keys() if outer_state else [])
        outer = outer_state.to_json() if outer_state else ""
        answer = self._run(
            "advance",
            gen, rid, new_rid, weights.to_json(), outer, ",".join(cids), ledger,
            keys=staged,
            parcel=parcel,
        )  # fmt: skip
        return answer[0], answer[1] if len(answer) > 1 else ""

    def acquire(self, gen: str, owner: str, *, ttl_ms: int) -> bool:
        """Whether ``owner`` is to look after the job for the next ``ttl_ms``."""
        return self._run("acquire", gen, owner, ttl_ms)[0] == "OK"

    def send(self, gen: str, ticket: str, *, burst: int) -> str:
        """Record a dispatch before it is sent. OK, FULL, IDLE or GONE."""
        return self._run("send", gen, ticket, burst)[0]

    def share(
        self, gen: str, *, most: int | None, credit_ms: float, lean: int, at_ms: float, used_ms: int
    ) -> None:
        """Lay down how many workers the job is to have for now, and why.

        Args:
            gen: The job's generation.
            most: So many; None for any number.
            credit_ms: What it was due and did not have, in worker-milliseconds.
            lean: Whether it is to have more than its share (1), less (-1), or just that (0).
            at_ms: Up to when these books go, by the server's clock.
            used_ms: The worker time that the job had had by then.
        """
        allot = "" if most is None else most
        self._run("share", gen, allot, round(credit_ms), lean, round(at_ms), used_ms)

    # -- reads -------------------------------------------------------------------------------

    def head(self) -> dict[str, str]:
        """The job's head; empty if there is none."""
        with redis_errors(self._where):
            raw: Mapping[bytes, bytes] = self._client.hgetall(self._keys[0])  # type: ignore[assignment]
        return as_fields(raw)

    def snapshot(self, *, first: Batch | None = None, chunks: Sequence[str] = ()) -> Snapshot:
        """Head, contributions, participants and tickets, read together.

        Args:
            first: Commands to be carried out before, in the same trip.
            chunks: Keys of contributions to be read along with it.
        """
        look = command(self._client, "look", self._keys, ("",))
        gets = [["GET", key] for key in chunks]
        with redis_errors(self._where):
            answer, *values = run_together(self._client, look, *gets, first=first)
        return Snapshot.from_answer(answer, dict(zip(chunks, values, strict=True)))

    def ledger(self) -> Ledger:
        """The ledger of the epoch that was planned last."""
        with redis_errors(self._where):
            raw: Mapping[bytes, bytes] = self._client.hgetall(self._keys[7])  # type: ignore[assignment]
        return Ledger.from_hash(raw)

    def failed(self, first: int, last: int) -> list[str]:
        """The failed attempts of that ledger, by their numbers from 1, as JSON texts.

        Of very many only the first ones were noted.
        """
        names = [f"f{number}" for number in range(first, min(last, _MAX_FAILED) + 1)]
        if not names:
            return []
        with redis_errors(self._where):
            texts: Any = self._client.hmget(self._keys[7], names)
        return [as_text(text) for text in texts if text is not None]

    def _run(
        self,
        script: str,
        *args: object,
        keys: Sequence[str] = (),
        first: Batch | None = None,
        parcel: "Parcel | None" = None,
    ) -> list[str]:
        """Run a script, behind other commands or behind the blobs that it refers to."""
        call = command(self._client, script, [*self._keys, *keys], args)
        if parcel is not None:
            return as_texts(parcel.deliver(call))
        with redis_errors(self._where):
            return as_texts(run_together(self._client, call, first=first)[0])


def _wait(stream: str, after: str, block_ms: int, *, count: int = 1) -> list[Any]:
    """The command that waits for entries of a stream."""
    return ["XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", stream, after]
