"""Simulated workers, parameter servers and schedulers: generators that do what the real ones do.

They yield a callable for every call that leaves the process (its answer comes back), and a
number to sleep for so many milliseconds. Between any two yields the simulator may let others
run, kill or pause the actor, or repeat its call.
"""

import json
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

from brokers.errors import ChunksMissing
from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.head import Head
from brokers.rounds.snapshot import Snapshot
from brokers.tensors.reference import TensorRef
from kubeml.jobs.spec import STAGE_OF, State
from kubeml.server.dispatch_watch import DispatchWatch
from tests.protocol.sim_referee import Violation, cid_of, require_whole

if TYPE_CHECKING:
    from tests.protocol.sim_world import World

Actor = Generator[Callable[[], Any] | int, Any, Any]


def worker(world: "World", name: str) -> Actor:
    """A training worker: takes messages, takes part."""
    while True:
        message = world.next_message()
        if message is None:
            yield world.rng.randrange(50, 300)
        else:
            yield from _Participant(world, name, *message).run()


class _Participant:
    def __init__(self, world: "World", name: str, ticket: str, stage: str) -> None:
        self.world, self.name, self.ticket, self.stage = world, name, ticket, stage
        self.store, self.channel, self.rng = world.store, world.channel, world.rng
        self.token = world.new_id()
        self.gen = ""
        #: What it handed in last: its process has those local weights.
        self.made = ""

    def run(self) -> Actor:
        head = yield self.store.head
        self.gen = head.gen
        if not self.gen:
            return
        started = idle_since = self.world.ms
        preferred: list[int] = []
        while True:
            held, idle = self.world.ms - started, self.world.ms - idle_since
            answer = yield self._take(list(preferred), held, idle)
            if isinstance(answer, Leave):
                return
            if isinstance(answer, Wait):
                yield self.rng.randrange(20, 500)
                continue
            yield from self._serve(answer)
            preferred = [answer.slot, *(s for s in preferred if s != answer.slot)]
            idle_since = self.world.ms

    def _take(self, preferred: list[int], held_ms: int, idle_ms: int) -> Callable[[], Any]:
        waiting = len(self.world.messages)
        num_first = int(bool(waiting) and self.world.happens("new job"))
        return lambda: self.store.take(
            self.gen,
            token=self.token,
            ticket=self.ticket,
            stage=self.stage,
            preferred=preferred,
            queue_length=waiting,
            num_first=num_first,
            held_ms=held_ms,
            idle_ms=idle_ms,
        )

    def _serve(self, work: Work) -> Actor:
        base = ""
        if self.stage != "init":
            try:
                if work.weights is None:
                    raise Violation("work was given out before there were weights")
                base = work.weights.key
                yield partial(self.channel.pull, work.weights)
                if work.local:
                    base += "+" + cid_of(work.local)
                    if work.local != self.made:
                        yield lambda: self.channel.pull(TensorRef.from_json(work.local))
                if work.optimizer:
                    yield lambda: self.channel.pull(TensorRef.from_json(work.optimizer))
            except ChunksMissing:
                yield self._kick(work, "drain")
                yield 500
                return
        for _ in range(self.rng.randrange(4)):
            yield self.rng.randrange(50, 1500)
            beat = yield lambda: self.store.beat(
                self.gen, token=self.token, slot=work.slot, rid=work.rid
            )
            if beat != "OK":
                return
        if self.world.happens("error"):
            yield self._kick(work, "error")
            return
        yield from self._hand_in(work, base)

    def _hand_in(self, work: Work, base: str) -> Actor:
        cid = self.world.new_id()
        parts = [work.epoch, work.round_index, work.slot, cid, base]
        content = json.dumps(None if self.world.happens("corrupt") else parts).encode()
        tensors = yield lambda: self.channel.push(self.store.key("c", cid), content)
        optimizer = None
        if self.stage == "train":
            optimizer = yield lambda: self.channel.push(self.store.key("o", cid), cid.encode())
        made = Contribution(
            cid=cid,
            token=self.token,
            slot=work.slot,
            worker=self.name,
            attempt=work.attempt,
            num_samples=1,
            tensors=tensors.to_json(),
            optimizer=optimizer.to_json() if optimizer else "",
        )
        if self.world.happens("slow worker"):
            yield self.rng.randrange(2000, 9000)
        answer, last = yield lambda: self.store.contribute(self.gen, work.rid, made)
        if answer == "OK":
            self.made = made.tensors
        if answer in {"LOST", "DUPLICATE"} or (answer != "OK" and not self.world.spec.overlap):
            # Not the optimizer state: the call may have been repeated, and the first one counted.
            yield lambda: self.channel.drop(tensors)
        elif last is not None and last.is_complete:
            self.world.hint()

    def _kick(self, work: Work, kind: str) -> Callable[[], Any]:
        return lambda: self.store.kick(
            self.gen, work.rid, slot=work.slot, who=self.token, kind=kind, why=kind
        )


def scheduler(world: "World", _name: str) -> Actor:
    """Plans an epoch with any number of slots and rounds, and dispatches its stage."""
    store, rng = world.store, world.rng
    while True:
        if not world.plan_requests:
            yield rng.randrange(50, 300)
            continue
        world.plan_requests -= 1
        head = yield store.head
        if not head or head.stop:
            continue
        if head.state == "PLAN":
            yield _plan(world, head)
            head = yield store.head
        stage = STAGE_OF.get(State(head.state or "END"))
        for _ in range(head.want if stage else 0):
            ticket = world.new_id()
            answer = yield _send(world, head, ticket)
            if answer != "OK":
                break
            world.dispatch(ticket, str(stage))


def _plan(world: "World", head: Head) -> Callable[[], Any]:
    rounds, slots = world.rng.randrange(1, 4), world.rng.randrange(1, 4)
    last_want, new_rid = world.rng.randrange(1, slots + 1), world.new_id()
    return lambda: world.store.plan(
        head.gen,
        head.rid,
        new_rid,
        epoch=head.epoch + 1,
        slots=slots,
        rounds=rounds,
        want=last_want if rounds == 1 else slots,
        last_want=last_want,
        validation_slots=world.rng.randrange(slots + 1),
        decision="simulated",
    )


def _send(world: "World", head: Head, ticket: str) -> Callable[[], Any]:
    return lambda: world.store.send(head.gen, ticket, burst=head.want)


def parameter_server(world: "World", name: str) -> Actor:
    """Looks after the job, on hints and ticks."""
    watch = DispatchWatch(world, world.store, world.job_id)  # type: ignore[arg-type]
    while True:
        is_tick = not world.take_hint()
        while (yield from _Keeper(world, name, watch).look(is_tick=is_tick)):
            pass
        yield world.rng.randrange(100, 600)


class _Keeper:
    def __init__(self, world: "World", name: str, watch: DispatchWatch) -> None:
        self.world, self.name, self.watch = world, name, watch
        self.store, self.channel, self.objects = world.store, world.channel, world.objects

    def look(self, *, is_tick: bool) -> Actor:
        """One look at the job; returns whether to look again at once."""
        snap = yield self.store.snapshot
        if not snap.head:
            yield from self._rebuild(seen="")
            return False
        if State(snap.state).is_final:
            self.objects.end = self.objects.end or snap.state
            return False
        if is_tick and not (yield lambda: self.store.acquire(snap.gen, self.name, ttl_ms=3000)):
            return False
        try:
            return (yield from self._step(snap, is_tick=is_tick))
        except ChunksMissing:
            yield from self._rebuild_unless_superseded(snap)
            return True

    def _are_tensors_lost(self, snap: Snapshot) -> Callable[[], bool]:
        def look() -> bool:
            keys = snap.weights.chunk_keys() if snap.weights else []
            now = self.store.snapshot()
            for text in (*now.optimizer.values(), *now.local.values()):
                keys += TensorRef.from_json(text).chunk_keys()
            return bool(keys) and self.store._client.exists(*keys) < len(keys)

        return look

    def _rebuild_unless_superseded(self, snap: Snapshot) -> Actor:
        """Rebuild the job: tensors are gone; unless others went on since the snapshot."""
        head = yield self.store.head
        if head.rid == snap.rid:
            yield from self._rebuild(seen=snap.gen)

    def _step(self, snap: Snapshot, *, is_tick: bool) -> Actor:
        if snap.head.stop:
            yield self._finish(snap, "", to="STOPPED")
            return True
        is_partial = bool(snap.contributions) and not snap.is_complete
        is_hasty = is_partial and self.world.happens("hasty")
        if snap.state in {"INIT", "RUN"} and (snap.is_complete or is_hasty):
            return (yield from self._commit(snap))
        if snap.state == "END" or (snap.state == "VAL" and snap.is_complete):
            yield from self._finish_epoch(snap)
            return True
        if is_tick:
            if (yield self._are_tensors_lost(snap)):
                yield from self._rebuild_unless_superseded(snap)
            else:
                yield self._share(snap)
                waiting = len(self.world.messages)
                yield lambda: self.watch.repair(snap, self.world.spec, queue_length=waiting)
        return False

    def _share(self, snap: Snapshot) -> Callable[[], Any]:
        """Shares come and go as other jobs do: of none, too."""
        most = self.world.rng.randrange(3) if self.world.happens("share") else None
        return lambda: self.store.share(
            snap.gen, most=most, credit_ms=0.0, lean=0, at_ms=snap.now_ms, used_ms=0
        )

    def _commit(self, snap: Snapshot) -> Actor:
        read = [Contribution.from_json(snap.contributions[s]) for s in sorted(snap.contributions)]
        parts = []
        if snap.state == "RUN":
            parts = json.loads((yield partial(self._pull_weights, snap)))
        for contribution in read:
            trained = yield from self._pull_contribution(contribution)
            if trained is None or self.world.happens("misread"):
                yield self._refuse(snap, contribution)
                return True
            if snap.state == "RUN":
                parts.append([*trained, snap.head.want, snap.head.rounds])
        if snap.state == "INIT":
            yield lambda: self.objects.checkpoints.setdefault(0, {"parts": [], "ver": 1, "o": []})
        return (yield from self._advance(snap, read, parts))

    def _pull_weights(self, snap: Snapshot) -> bytes:
        if snap.weights is None:
            raise Violation(f"{snap.state} without weights")
        return bytes(self.channel.pull(snap.weights))

    def _pull_contribution(self, contribution: Contribution) -> Actor:
        try:
            return json.loads((yield lambda: self.channel.pull(contribution.ref)))
        except ChunksMissing:
            return None

    def _advance(self, snap: Snapshot, read: list[Contribution], parts: list[Any]) -> Actor:
        key, new_rid = self.store.key("w", self.world.new_id()), self.world.new_id()
        blob, cids = json.dumps(parts).encode(), [c.cid for c in read]
        weights = yield lambda: self.channel.push(key, blob)
        replaced, left_behind = snap.optimizer, snap.local
        if self.world.happens("expire"):
            self.channel.drop(weights)
        if self.world.happens("slow merge"):
            yield self.world.rng.randrange(500, 6000)
        answer, state = yield lambda: self.store.advance(
            snap.gen, snap.rid, new_rid, weights=weights, outer_state=None, cids=cids, ledger="[]"
        )
        if answer != "OK":
            yield lambda: self.channel.drop(weights)
            return answer in {"CHANGED", "STALE"}
        stale = [TensorRef.from_json(text) for text in left_behind.values()]
        stale += [snap.weights] if snap.weights else []
        if not (self.world.spec.overlap and state == "RUN"):
            stale += [c.ref for c in read]
        stale += [TensorRef.from_json(replaced[c.slot]) for c in read if c.slot in replaced]
        yield lambda: self.channel.drop(*stale)
        if state != "RUN":
            self.world.schedule()
        return True

    def _refuse(self, snap: Snapshot, bad: Contribution) -> Callable[[], Any]:
        return lambda: self.store.kick(
            snap.gen, snap.rid, slot=bad.slot, who=bad.cid, kind="bad", why="bad"
        )

    def _finish_epoch(self, snap: Snapshot) -> Actor:
        epoch, validated = snap.head.epoch, []
        if snap.state == "VAL":
            validated = sorted(snap.contributions)
        if (yield lambda: epoch in self.objects.checkpoints) is False:
            parts = json.loads((yield partial(self._pull_weights, snap)))
            require_whole([tuple(p) for p in parts], epochs=epoch)
            if (yield self.store.head).rid != snap.rid:
                return  # what was read just now is of another state than the weights
            made_with = [[slot, cid_of(text)] for slot, text in snap.optimizer.items()]
            record = {"parts": parts, "ver": snap.head.version, "o": made_with}
            # The row first: a checkpoint without its row would be built upon after a loss.
            yield lambda: self.objects.rows.setdefault(epoch, validated)
            yield lambda: self.objects.checkpoints.setdefault(epoch, record)
        if epoch >= self.world.spec.epochs:
            yield self._finish(snap, "", to="DONE")
        elif (yield self._finish(snap, self.world.new_id(), to="PLAN")) == "OK":
            self.world.schedule()

    def _finish(self, snap: Snapshot, new_rid: str, *, to: str) -> Callable[[], Any]:
        return lambda: self.store.finish(snap.gen, snap.rid, new_rid, to=to)

    def _rebuild(self, *, seen: str) -> Actor:
        if self.objects.end:
            return
        number = self.objects.num_generations + 1
        claimed = yield lambda: self.objects.claim_generation(number)
        if claimed is None:
            return
        fields = self.world.fields()
        if self.objects.checkpoints:
            yield from self._restore(fields)
        birth = self.world.new_id()
        yield lambda: self.store.init(number, birth=birth, fields=fields, seen=seen)

    def _restore(self, fields: dict[str, Any]) -> Actor:
        """Push what the last checkpoint holds, and refer to it in ``fields``."""
        epoch = max(self.objects.checkpoints)
        record = self.objects.checkpoints[epoch]
        blob, key = json.dumps(record["parts"]).encode(), self.store.key("w", self.world.new_id())
        weights = yield lambda: self.channel.push(key, blob)
        # END, not PLAN: whether another epoch follows is decided where it always is.
        state = "END" if epoch else "PLAN"
        fields |= {"state": state, "epoch": epoch, "ver": record["ver"], "w": weights.to_json()}
        for slot, cid in record["o"]:
            name = self.store.key("o", f"{cid}-{self.world.new_id()}")
            ref = yield partial(self.channel.push, name, cid.encode())
            fields[f"o:{slot}"] = ref.to_json()
