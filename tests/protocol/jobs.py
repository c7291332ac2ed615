"""A job on a real state server, driven script by script."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.keeping import Keeping
from brokers.rounds.participation import Participation
from brokers.state.scripts import script_sources
from brokers.tensors.channel import TensorChannel
from brokers.wire import as_fields, new_id
from tests.protocol.script_variants import clocked, install

if TYPE_CHECKING:
    from redis import Redis

LEASE_MS = 6000
MAX_ERRORS = 3
MAX_LOST = 4

#: Where the set clock starts: some instant in this century, in ms.
START_MS = 1_800_000_000_000


class WholeStore(Participation, Keeping):
    """Everything that can be done with a job's live state, by whomever."""

    def fields(self) -> dict[str, str]:
        """The head as it stands there: field to value, as text."""
        raw: Any = self._client.hgetall(self.key("h"))
        return as_fields(raw)


class ScriptedJob:
    """One job's round store, and shortcuts to bring it into a state."""

    def __init__(
        self,
        client: "Redis",
        job_id: str,
        *,
        sources: Mapping[str, str] | None = None,
        has_set_clock: bool = False,
    ) -> None:
        scripts = script_sources() if sources is None else sources
        self.client = install(client, clocked(scripts) if has_set_clock else scripts)
        self.store = WholeStore(client, job_id)
        self.channel = TensorChannel(client)
        self.gen = "1"
        if has_set_clock:
            self.client.set(self.store.key("clock"), START_MS)

    # -- reading -----------------------------------------------------------------------------

    @property
    def head(self) -> dict[str, str]:
        """Field to value, as text: what stands there, not what Python makes of it."""
        return self.store.fields()

    @property
    def rid(self) -> str:
        return self.head["rid"]

    @property
    def state(self) -> str:
        return self.head["state"]

    def everything(self) -> dict[str, Any]:
        """All keys of the job (but not its chunks) with their contents, to compare."""
        read: dict[str, Any] = {"h": self.head}
        for name in "scol":
            read[name] = self.client.hgetall(self.store.key(name))
        read["g"] = self.client.hgetall(self.store.key("g"))
        for name in "pd":
            members: Any = self.client.zrange(self.store.key(name), 0, -1)
            read[name] = sorted(members)
        return read

    def lease(self, slot: int) -> dict[str, Any]:
        text: Any = self.client.hget(self.store.key("s"), str(slot))
        return json.loads(text) if text else {}

    def num_rings(self) -> int:
        return int(self.client.xlen(self.store.bell_key))

    # -- the set clock -----------------------------------------------------------------------

    def step_clock(self, by_ms: int) -> None:
        self.client.incrby(self.store.key("clock"), by_ms)

    # -- states ------------------------------------------------------------------------------

    def fields(self, **changes: object) -> dict[str, object]:
        return {
            "state": "INIT",
            "rid": new_id(),
            "epoch": 0,
            "round": 0,
            "rounds": 1,
            "ver": 0,
            "w": "",
            "slots": 1,
            "want": 1,
            "lease_ms": LEASE_MS,
            "max_errors": MAX_ERRORS,
            "max_lost": MAX_LOST,
            **changes,
        }

    def begin(self, **changes: object) -> "ScriptedJob":
        """INIT: the weights are to be initialised."""
        assert self.store.init(int(self.gen), birth=new_id(), fields=self.fields(**changes))
        return self

    def begin_planned(
        self,
        *,
        slots: int = 2,
        rounds: int = 2,
        last_want: int = 0,
        vslots: int = 0,
        **changes: object,
    ) -> "ScriptedJob":
        """RUN: epoch 1 is planned, nobody has come yet."""
        self.begin(state="PLAN", w=self.stage().to_json(), ver=1, **changes)
        assert self.plan(slots=slots, rounds=rounds, last_want=last_want, vslots=vslots) == "OK"
        return self

    def plan(
        self,
        *,
        epoch: int = 1,
        slots: int = 2,
        rounds: int = 2,
        last_want: int = 0,
        vslots: int = 0,
        rid: str = "",
        new_rid: str = "",
    ) -> str:
        return self.store.plan(
            self.gen,
            rid or self.rid,
            new_rid or new_id(),
            epoch=epoch,
            slots=slots,
            rounds=rounds,
            want=slots if rounds > 1 else last_want or slots,
            last_want=last_want or slots,
            validation_slots=vslots,
            decision="test",
        )

    # -- participants ------------------------------------------------------------------------

    def ticket(self) -> str:
        """A ticket as SEND records it, however full the job is."""
        ticket = new_id()
        self.client.zadd(self.store.key("d"), {ticket: 0})
        return ticket

    def take(
        self, token: str, ticket: str = "", *, stage: str = "train", **more: Any
    ) -> Work | Wait | Leave:
        return self.store.take(self.gen, token=token, ticket=ticket, stage=stage, **more)

    def join(self, token: str, *, stage: str = "train", **more: Any) -> Work:
        """A new participant that is given a slot."""
        work = self.take(token, self.ticket(), stage=stage, **more)
        assert isinstance(work, Work), work
        return work

    def contribute(self, token: str, work: Work, cid: str = "", **facts: Any) -> str:
        made = make_contribution(token=token, slot=work.slot, cid=cid or new_id(), **facts)
        return self.store.contribute(self.gen, work.rid, made)[0]

    def fill(self, *, stage: str = "train") -> list[str]:
        """A newcomer trains every slot that is not in; returns the cids in slot order."""
        token = new_id()
        self.client.delete(self.store.key("p"))
        ticket = self.ticket()
        while isinstance(work := self.take(token, ticket, stage=stage), Work):
            cid = new_id()
            assert self.contribute(token, work, cid, tensors=f"tensors-{cid}") == "OK"
        contributions = self.store.snapshot().contributions
        return [json.loads(contributions[slot])["cid"] for slot in sorted(contributions)]

    # -- parameter server --------------------------------------------------------------------

    def stage(self, content: bytes = b"weights") -> Any:
        return self.channel.push(self.store.key("w", new_id()), content)

    def advance(
        self, cids: list[str], *, rid: str = "", new_rid: str = "", weights: Any = None, **more: Any
    ) -> tuple[str, str]:
        return self.store.advance(
            self.gen,
            rid or self.rid,
            new_rid or new_id(),
            weights=weights or self.stage(),
            outer_state=more.get("outer_state"),
            cids=cids,
            ledger=json.dumps(cids),
        )

    def run_epoch(self) -> None:
        """Every round of the epoch under way."""
        while self.state == "RUN":
            assert self.advance(self.fill())[0] == "OK"


def make_contribution(
    *, slot: int = 0, token: str = "token", cid: str = "cid", **facts: Any
) -> Contribution:
    """A contribution of 8 samples."""
    defaults = {"worker": "w", "attempt": 1, "num_samples": 8}
    return Contribution(cid=cid, token=token, slot=slot, **{**defaults, **facts})
