"""The round store: one job's live state on the state server, changed only by its Lua scripts.

Every method is one script (or a read) and may be repeated with the same arguments, since redis-py
re-sends a command whose reply was lost. The rules are in ``lua/*.lua``; this room gives them names
and types. This module has what every process may do with a job: begin, plan, change, end and read
it. ``participation.py`` has what a worker does in a round, and ``keeping.py`` what a parameter
server does there.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brokers.rounds.head import Head
from brokers.rounds.index import ENDED_KEY, ENDED_TTL_S, JOBS_KEY
from brokers.rounds.snapshot import Ledger, Snapshot
from brokers.state.batch import Batch
from brokers.state.error_mapping import redis_errors
from brokers.state.scripts import as_texts, command, run_together
from brokers.wire import as_text, to_bytes

if TYPE_CHECKING:
    from redis import Redis

    from brokers.tensors.parcel import Parcel

#: How many failed attempts of an epoch are noted; see ``note_failed`` in ``lua/_prelude.lua``.
_MAX_FAILED = 500

#: A longer reason, which is mostly a traceback, is cut.
_MAX_REASON_CHARS = 20_000


class RoundStore:
    """The live state of one job; see also ``Participation`` and ``Keeping``."""

    def __init__(self, client: "Redis", job_id: str, *, where: str = "the state server") -> None:
        self.job_id = job_id
        self._client = client
        self._where = where
        self._prefix = f"kml:{{{job_id}}}"
        self._keys = [f"{self._prefix}:{name}" for name in "hscpdoxgkl"]

    def key(self, *parts: object) -> str:
        """Return a key of this job, under its hash tag."""
        return ":".join([self._prefix, *map(str, parts)])

    # -- life of a job -----------------------------------------------------------------------

    def init(self, gen: int, *, birth: str, fields: Mapping[str, object], seen: str = "") -> bool:
        """Build the head unless there is one of this generation or a later one.

        Args:
            gen: The generation: 1, and one more each time the job is rebuilt from S3.
            birth: A uuid that makes it harmless to repeat this call.
            fields: The head's other fields.
            seen: The generation that the caller saw, "" if it saw no head: another one stays.

        Returns:
            Whether the head is now this one.
        """
        flat = [str(part) for item in fields.items() for part in item]
        answer = self._run("init", gen, seen, "birth", birth, *flat)
        if answer[0] == "OK":
            self.enlist()
        return answer[0] == "OK"

    def enlist(self) -> None:
        """Put a job that is under way on the pool's list of jobs, where it may be missing.

        A process that retired the job's last life and was held up may take it off the list after
        the next life began. In a cluster the list and the job are in different hash slots, so no
        script can change both.
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
        """Begin an epoch (PLAN → RUN), and return OK, STALE or GONE."""
        expected = "" if expected_s is None else expected_s
        args = (epoch, slots, rounds, want, last_want, validation_slots, decision, expected)
        return self._run("plan", gen, rid, new_rid, *args)[0]

    def finish(self, gen: str, rid: str, new_rid: str, *, to: str, reason: str = "") -> str:
        """Close an epoch (to PLAN) or the job (to its end); return OK, STALE, MORE or GONE."""
        text = to_bytes(reason, max_chars=_MAX_REASON_CHARS)
        return self._run("finish", gen, rid, new_rid, to, text)[0]

    def stop(self, gen: str) -> str:
        """Ask the job to end, and return OK, FINAL or GONE."""
        return self._run("stop", gen)[0]

    def scale(self, gen: str, number: int, floor: int, ceiling: int, max_workers: int) -> str:
        """Set what N and W may be, unless a later change did; return OK, FINAL or GONE."""
        return self._run("scale", gen, number, floor, ceiling, max_workers)[0]

    def kick(self, gen: str, rid: str, *, slot: int, who: str, kind: str, why: str) -> str:
        """Drop a contribution (kind bad, who = cid) or a lease (error, drain; who = token)."""
        text = to_bytes(why, max_chars=_MAX_REASON_CHARS)
        return self._run("kick", gen, rid, slot, who, kind, text)[0]

    def retire(self, gen: str) -> None:
        """Forget a finished job's working state at once, and its head after a while."""
        with redis_errors(self._where):
            for key in (self.key("log"), self.key("ev")):
                self._client.expire(key, ENDED_TTL_S)
        if self._run("retire", gen, ENDED_TTL_S)[0] != "OK":
            return
        with redis_errors(self._where):
            self._client.zadd(ENDED_KEY, {self.job_id: time.time()})
            # This goes last: while the job is on the list, a keeper will finish this work.
            self._client.srem(JOBS_KEY, self.job_id)

    def forget(self) -> None:
        """Remove every trace of a job from the state server, but for its expiring chunks."""
        with redis_errors(self._where):
            self._client.srem(JOBS_KEY, self.job_id)
            self._client.zrem(ENDED_KEY, self.job_id)
            self._client.delete(*self._keys, self.key("log"), self.key("ev"))

    # -- reads -------------------------------------------------------------------------------

    def head(self) -> Head:
        """Return the job's head; false if there is none."""
        with redis_errors(self._where):
            raw: Mapping[bytes, bytes] = self._client.hgetall(self._keys[0])  # type: ignore[assignment]
        return Head.from_fields(raw)

    def snapshot(self, *, first: Batch | None = None, chunks: Sequence[str] = ()) -> Snapshot:
        """Read the head, contributions, participants and tickets together.

        Args:
            first: Commands to be carried out before that, in the same trip.
            chunks: Keys of contributions to be read in the same trip.
        """
        look = command(self._client, "look", self._keys, ("",))
        gets = [["GET", key] for key in chunks]
        with redis_errors(self._where):
            answer, *values = run_together(self._client, look, *gets, first=first)
        return Snapshot.from_answer(answer, dict(zip(chunks, values, strict=True)))

    def ledger(self) -> Ledger:
        """Return the ledger of the epoch that was planned last."""
        with redis_errors(self._where):
            raw: Mapping[bytes, bytes] = self._client.hgetall(self._keys[7])  # type: ignore[assignment]
        return Ledger.from_hash(raw)

    def failed(self, first: int, last: int) -> list[str]:
        """Return that ledger's failed attempts, by their numbers from 1, as JSON texts.

        If there are very many, only the first ones were noted.
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


def wait_command(stream: str, after: str, block_ms: int, *, count: int = 1) -> list[Any]:
    """Return the command that waits for entries of a stream after an id."""
    return ["XREAD", "COUNT", count, "BLOCK", block_ms, "STREAMS", stream, after]
