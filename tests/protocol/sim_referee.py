"""The simulator's judge: watches every script call and knows what must not happen.

It keeps its own small books (who was granted which slot, what was accepted), and compares them
with what the scripts answer and with what the merged "weights" say they are made of.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brokers.errors import KubemlError
from brokers.rounds.store import RoundStore
from brokers.tensors.channel import TensorChannel
from brokers.tensors.reference import TensorRef

#: One piece of work in some weights: epoch, round, slot, cid, what it is based on, and how many
#: slots and rounds its epoch had. It is based on merged weights, by their key; with overlap, and in
#: all rounds but an epoch's first, also on the slot's last contribution: ``key+cid``.
Part = tuple[int, int, int, str, str, int, int]

#: Where in its arguments a script has the rid that must be the current one.
RID_OF = {"beat": 3, "contrib": 2, "kick": 1}

#: Scripts whose effect on the head is examined, call by call.
COMMITS = frozenset({"init", "plan", "advance", "finish", "kick"})


class Violation(AssertionError):
    """An invariant of DESIGN 4.1 does not hold."""


@dataclass
class Grant:
    """A lease as the judge saw it being given."""

    token: str
    deadline_ms: int


@dataclass
class Books:
    """What the job's keys should say; rolled back together with them."""

    gen: str = ""
    rid: str = ""
    grants: dict[tuple[str, int], Grant] = field(default_factory=dict)
    #: Leases of copies, of a slot that somebody else has.
    copies: dict[tuple[str, int], Grant] = field(default_factory=dict)
    accepted: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass
class Store:
    """What lasts beyond the state server: the simulated S3. Everything is create-only."""

    num_generations: int = 0
    checkpoints: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: dict[int, list[int]] = field(default_factory=dict)
    end: str = ""

    def claim_generation(self, number: int) -> int | None:
        """The number, if nobody claimed it before."""
        if number != self.num_generations + 1:
            return None
        self.num_generations = number
        return number


class Referee:
    """Sees every call's answer in the order of the server, and raises Violation."""

    def __init__(self, channel: TensorChannel, objects: Store, *, lease_ms: int) -> None:
        self.books = Books()
        self._channel = channel
        self._objects = objects
        self._lease_ms = lease_ms
        self.num_advances = 0
        self.answers: dict[str, int] = {}

    def saved(self) -> Books:
        """A copy of the books, to go with a snapshot of the keys."""
        return copy.deepcopy(self.books)

    def saw(
        self,
        store: RoundStore,
        script: str,
        args: Sequence[str],
        answer: Sequence[str],
        *,
        now_ms: int,
        before: Mapping[str, str],
        after: Mapping[str, str],
    ) -> None:
        """Judge one call; ``args`` are without the generation's field for INIT."""
        name = f"{script} {answer[0]}"
        self.answers[name] = self.answers.get(name, 0) + 1
        gen = args[0]
        if script != "init" and gen != self.books.gen and answer[0] != "GONE":
            raise Violation(f"I4: {script} of gen {gen} got {answer[0]} in gen {self.books.gen}")
        if script in COMMITS and answer[0] not in {"OK", "FAILED"} and before != after:
            raise Violation(f"{script} answered {answer[0]} and changed the head")
        position = RID_OF.get(script)
        if position and answer[0] in {"OK", "SLOT"} and args[position] != self.books.rid:
            raise Violation(f"I4: {script} of rid {args[position]} counted in {self.books.rid}")
        if answer[0] in {"OK", "SLOT"}:
            judge = getattr(self, f"_on_{script}", None)
            if judge is not None:
                judge(store, args, answer, now_ms, before, after)
        if after:
            self.books.rid = after["rid"]

    # -- slots -------------------------------------------------------------------------------

    def _on_take(self, _: Any, args: Any, answer: Any, now_ms: int, *__: Any) -> None:
        token, slot, rid, is_copy = args[1], int(answer[1]), answer[2], answer[11] == "1"
        if (rid, slot) in self.books.accepted:
            raise Violation(f"slot {slot} was granted although its contribution is in")
        is_held = self._is_valid(self.books.grants.get((rid, slot)), now_ms)
        if not is_held and (copied := self.books.copies.pop((rid, slot), None)):
            # Whoever has a copy has the slot itself since the other gave it up, or died.
            self.books.grants[rid, slot] = copied
        # A copy may be granted beside another's lease, and a lease beside none.
        for books in [self.books.copies] if is_copy else [self.books.grants, self.books.copies]:
            held = books.get((rid, slot))
            if held and held.token != token and self._is_valid(held, now_ms):
                raise Violation(f"I4: slot {slot} was granted while another's lease was valid")
        books = self.books.copies if is_copy else self.books.grants
        books[rid, slot] = Grant(token, now_ms + self._lease_ms)

    def _on_beat(self, _: Any, args: Any, __: Any, now_ms: int, *___: Any) -> None:
        token, slot, rid = args[1], int(args[2]), args[3]
        grant = self._held_by(token, rid, slot)
        if grant is None:
            raise Violation(f"I4: a beat for slot {slot} renewed a lease it does not hold")
        grant.deadline_ms = now_ms + self._lease_ms

    def _on_contrib(self, _: Any, args: Any, *__: Any) -> None:
        token, rid, slot, cid = args[1], args[2], int(args[3]), args[4]
        accepted = self.books.accepted.get((rid, slot))
        if accepted == cid:
            return
        if accepted is not None:
            raise Violation(f"I1: slot {slot} was accepted twice: {accepted}, {cid}")
        if self._held_by(token, rid, slot) is None:
            raise Violation(f"I4: slot {slot} was accepted from {token}, which does not hold it")
        self.books.grants.pop((rid, slot), None)
        self.books.copies.pop((rid, slot), None)
        self.books.accepted[rid, slot] = cid

    def _is_valid(self, grant: Grant | None, now_ms: int) -> bool:
        return grant is not None and 0 <= grant.deadline_ms - now_ms <= self._lease_ms

    def _held_by(self, token: str, rid: str, slot: int) -> Grant | None:
        """The lease by which a token has a slot, or a copy of it."""
        for books in (self.books.grants, self.books.copies):
            grant = books.get((rid, slot))
            if grant is not None and grant.token == token:
                return grant
        return None

    def _on_kick(self, _: Any, args: Any, *__: Any) -> None:
        rid, slot, who, kind = args[1], int(args[2]), args[3], args[4]
        if kind == "bad":
            if self.books.accepted.pop((rid, slot), None) != who:
                raise Violation(f"I4: a contribution of slot {slot} was kicked under another cid")
            return
        grant = self._held_by(who, rid, slot)
        if grant is self.books.copies.get((rid, slot)):
            self.books.copies.pop((rid, slot), None)
        else:
            self.books.grants.pop((rid, slot), None)
        if grant is None:
            raise Violation(f"I4: a lease of slot {slot} was kicked by {who}, not its holder")

    # -- commits -----------------------------------------------------------------------------

    def _on_init(self, store: RoundStore, args: Any, *rest: Any) -> None:
        before, after = rest[-2:]
        if before == after:
            return
        if before and int(before["gen"]) >= int(args[0]):
            raise Violation(f"I4: gen {before['gen']} was overwritten by {args[0]}")
        self.books = Books(gen=args[0])
        if after["w"]:
            parts = self.parts(after["w"])
            require_whole(parts, epochs=int(after["epoch"]))
            self._require_optimizers(store, parts)

    def _on_plan(self, _: Any, __: Any, ___: Any, ____: Any, before: Any, after: Any) -> None:
        if before == after:
            return
        if before["state"] != "PLAN" or int(after["epoch"]) != int(before["epoch"]) + 1:
            raise Violation(f"I1: epoch {after['epoch']} was planned in {before['state']}")

    def _on_finish(self, _: Any, args: Any, __: Any, ___: Any, before: Any, after: Any) -> None:
        if before == after or args[3] in {"STOPPED", "FAILED"}:
            return
        epoch = int(before["epoch"])
        if epoch not in self._objects.checkpoints or epoch not in self._objects.rows:
            raise Violation(f"I5: epoch {epoch} was finished without checkpoint and history row")

    def _on_advance(self, store: RoundStore, args: Any, _: Any, __: Any, *heads: Any) -> None:
        before, after = heads
        if before == after:
            return
        rid, epoch, index = before["rid"], int(before["epoch"]), int(before["round"])
        if args[1] != rid or int(after["ver"]) != int(before["ver"]) + 1:
            raise Violation(f"I4: a merge of rid {args[1]} was committed at rid {rid}")
        self.num_advances += 1
        try:
            parts = self.parts(after["w"])
        except KubemlError as err:
            raise Violation(f"a version was committed whose weights are not there: {err}") from err
        if before["state"] == "INIT":
            if parts:
                raise Violation("I1: initial weights are not initial")
            return
        rounds = int(before["rounds"])
        want = int(before["last_want" if index == rounds - 1 else "slots"])
        base = TensorRef.from_json(before["w"]).key
        known = self.parts_known(before["w"])
        began = {
            slot: f"{base}+{cid}"
            for *when, slot, cid, _, _, _ in known
            if before.get("overlap") == "1" and when == [epoch, index - 1]
        }
        expected = known + [
            (
                epoch, index, slot, self.books.accepted.get((rid, slot), "?"),
                began.get(slot, base), want, rounds,
            )
            for slot in range(want)
        ]  # fmt: skip
        if parts != expected:
            raise Violation(
                f"I1/I2: version {after['ver']} (epoch {epoch}, round {index}, {want} slots)"
                f" is made of\n  {_brief(parts)}\nexpected\n  {_brief(expected)}"
            )
        self._require_optimizers(store, parts)

    def _require_optimizers(self, store: RoundStore, parts: Sequence[Part]) -> None:
        """Each slot's optimizer state is the one that was made with the merged contribution."""
        latest = {part[2]: part[3] for part in parts}
        for slot, text in store.snapshot().optimizer.items():
            made_with = cid_of(text)
            if made_with != latest.get(slot):
                raise Violation(
                    f"I2: slot {slot} has the optimizer state of {made_with},"
                    f" the weights have {latest.get(slot)}"
                )
        if parts:
            last = parts[-1][:2]
            missing = {p[2] for p in parts if p[:2] == last} - set(store.snapshot().optimizer)
            if missing:
                raise Violation(f"I2: slots {sorted(missing)} have no optimizer state")

    def parts(self, text: str) -> list[Part]:
        """What some weights are made of, by what they say themselves."""
        self._known = getattr(self, "_known", {})
        ref = TensorRef.from_json(text)
        self._known[ref.key] = [tuple(p) for p in json.loads(self._channel.pull(ref))]
        return list(self._known[ref.key])

    def parts_known(self, text: str) -> list[Part]:
        """The same for weights that were committed before (they may have been dropped since)."""
        return list(self._known[TensorRef.from_json(text).key])


def cid_of(reference: str) -> str:
    """The contribution that an optimizer state, or local weights, came with (it is in the key)."""
    return TensorRef.from_json(reference).key.rsplit(":", 1)[1].split("-")[0]


def require_whole(parts: Sequence[Part], *, epochs: int) -> None:
    """I1 at an epoch's end: every (round, slot) of epochs 1 … ``epochs`` counts exactly once."""
    found = [part[:3] for part in parts]
    expected: list[tuple[int, int, int]] = []
    for epoch in range(1, epochs + 1):
        mine = [part for part in parts if part[0] == epoch]
        rounds = mine[0][6] if mine else 1
        for index in range(rounds):
            wants = {part[5] for part in mine if part[1] == index}
            expected += [(epoch, index, slot) for slot in range(max(wants, default=1))]
    if found != expected:
        raise Violation(f"I1: after epoch {epochs} the weights hold {found}, expected {expected}")


def _brief(parts: Sequence[Part]) -> str:
    return " ".join(f"{p[0]}.{p[1]}.{p[2]}={p[3][:6]}@{p[4][-6:]}" for p in parts[-8:])
