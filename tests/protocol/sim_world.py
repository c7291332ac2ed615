"""One simulated job: its actors, its clock, and the faults that happen to it."""

import contextlib
import copy
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from redis import Redis

from brokers.errors import KubemlError
from brokers.rounds.snapshot import Snapshot
from brokers.tensors.channel import TensorChannel
from kubeml.jobs.spec import JobSpec
from kubeml.server import dispatch_watch
from tests.protocol import sim_actors
from tests.protocol.jobs import WholeStore
from tests.protocol.script_variants import clocked, install
from tests.protocol.sim_chances import CHANCES, COUNTING, DELAYS_MS, HOUR_MS, PAUSES_MS, PER_TURN
from tests.protocol.sim_referee import COMMITS, Books, Referee, Store, Violation, require_whole

LEASE_MS = 3000
START_MS = 1_800_000_000_000

#: After the last fault the job must end within this time (I3).
BOUND_MS = 90_000

#: No run needs more turns than this; a livelock does.
MAX_TURNS = 20_000


@dataclass
class Seat:
    """An actor's place: what it is about to do, and when."""

    name: str
    make: Callable[["World", str], sim_actors.Actor]
    actor: sim_actors.Actor
    wake_ms: int = 0
    call: Callable[[], Any] | None = None


class SimulatedStore(WholeStore):
    """The round store, with every call shown to the referee and the time of the simulation."""

    def __init__(self, world: "World", client: Redis, job_id: str) -> None:
        super().__init__(client, job_id)
        self._world = world

    def snapshot(self, **how: Any) -> Snapshot:
        self._world.set_clock()
        return super().snapshot(**how)

    def _run(self, script: str, *args: object, **how: Any) -> list[str]:
        self._world.set_clock()
        self._world.last_script = script
        watched = script in COMMITS
        before = self.fields() if watched else {}
        answer = super()._run(script, *args, **how)
        after = self.fields() if watched else {}
        texts = list(map(str, args))
        self._world.note(f"  {script} {' '.join(t[:12] for t in texts[1:6])} -> {answer[:4]}")
        now_ms = self._world.server_ms
        referee = self._world.referee
        referee.saw(self, script, texts, answer, now_ms=now_ms, before=before, after=after)
        return answer


class World:
    """One job, its actors, and what goes wrong."""

    def __init__(
        self,
        client: Redis,
        seed: int,
        sources: Mapping[str, str],
        *,
        intensity: float = 0.0,
        likelier: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.job_id = f"sim-{seed}-{random.SystemRandom().randrange(2**40):x}"
        self._client = install(client, clocked(sources))
        self.ms, self._offset_ms, self._clock_set = 0, START_MS, 0
        self.channel, self.objects = TensorChannel(client), Store()
        self.referee = Referee(self.channel, self.objects, lease_ms=LEASE_MS)
        self.store = SimulatedStore(self, client, self.job_id)
        self.spec = _spec(self.job_id, epochs=self.rng.randrange(1, 4), overlap=seed % 2 == 1)
        self.hedges = seed % 4 >= 2
        self.messages: list[tuple[str, str]] = []
        self.plan_requests, self._hints = 0, 0
        self.faults: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=80)
        self._late: list[tuple[int, Callable[[], Any]]] = []
        self._saved: list[tuple[list[tuple[bytes, int, bytes]], Books]] = []
        self._num_faulty_turns = self.rng.randrange(600)
        self._intensity = self.rng.choice((0.3, 1.0, 1.5, 3.0))
        if intensity:
            self._num_faulty_turns, self._intensity = 1500, intensity
        self._likelier = likelier
        self._turn, self._calm_since_ms = 0, 0
        self.last_script = ""
        self._seats = [
            self._seat(sim_actors.worker, f"worker-{n}") for n in range(self.rng.randrange(1, 5))
        ]
        self._seats += [
            self._seat(sim_actors.parameter_server, f"ps-{n}")
            for n in range(self.rng.choice((1, 2, 2)))
        ]
        self._seats.append(self._seat(sim_actors.scheduler, "scheduler"))

    # -- what actors use ---------------------------------------------------------------------

    @property
    def server_ms(self) -> int:
        """The state server's clock."""
        return self.ms + self._offset_ms

    def new_id(self) -> str:
        """A uuid, the same for a seed."""
        return f"{self.rng.getrandbits(128):032x}"

    def happens(self, fault: str, *, times: float = 1.0) -> bool:
        """Whether a fault happens here and now, ``times`` as likely as usual."""
        if self._turn >= self._num_faulty_turns:
            return False
        times *= self._intensity * self._likelier.get(fault, 1.0)
        if self.rng.random() >= CHANCES[fault] * times:
            return False
        self.faults[fault] += 1
        return True

    def fields(self) -> dict[str, Any]:
        """The head of a job whose weights are to be initialised."""
        fields = {"state": "INIT", "rid": self.new_id(), "epoch": 0, "round": 0, "rounds": 1}
        fields |= {"ver": 0, "w": "", "slots": 1, "want": 1, "lease_ms": LEASE_MS}
        fields |= {"overlap": int(self.spec.overlap), "hedge": int(self.hedges)}
        return fields | {"max_errors": 10**6, "max_lost": 10**6}

    def next_message(self) -> tuple[str, str] | None:
        """The next dispatch, if one waits."""
        return self.messages.pop(0) if self.messages else None

    def dispatch(self, ticket: str, stage: str) -> None:
        """Send a dispatch; it may be lost or doubled, and overtakes others."""
        if self.happens("lost message"):
            return
        for _ in range(2 if self.happens("doubled message") else 1):
            self.messages.insert(self.rng.randint(0, len(self.messages)), (ticket, stage))

    def stage(self, stage: str, hint: Any, *, device: str, label: str) -> None:
        """What the dispatch watch calls."""
        self.dispatch(hint.ticket, stage)

    def schedule(self, *_: Any, **__: Any) -> None:
        """Ask for the next plan; may be lost or doubled."""
        if not self.happens("lost message"):
            self.plan_requests += 2 if self.happens("doubled message") else 1

    def hint(self) -> None:
        """Tell the parameter servers to look; may be lost."""
        if not self.happens("lost message"):
            self._hints += 1

    def take_hint(self) -> bool:
        """Whether a hint was there for the asking parameter server."""
        if not self._hints:
            return False
        self._hints -= 1
        return True

    def note(self, line: str) -> None:
        """Add to the trace that a failure prints."""
        self.trace.append(f"{self.ms:>7} {line}")

    def set_clock(self) -> None:
        """Let the scripts read the time of the simulation."""
        if self._clock_set != self.server_ms:
            self._clock_set = self.server_ms
            self._client.set(self.store.key("clock"), self.server_ms)

    # -- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Train the job to its end.

        Raises:
            Violation: An invariant was broken.
        """
        self.objects.claim_generation(1)
        with patch.object(dispatch_watch, "new_id", self.new_id):
            self.store.init(1, birth=self.new_id(), fields=self.fields())
            while not self.objects.end:
                self._take_turn()
                self._require_progress()
            self._after_the_end()

    def clean_up(self) -> None:
        """Leave nothing on the server."""
        self._forget_keys()
        self._client.delete(self.store.key("clock"))
        self.store.forget()

    def _take_turn(self) -> None:
        self._turn += 1
        if self._turn <= self._num_faulty_turns:
            self._calm_since_ms = self.ms
            self._fault_of_the_turn()
        self._run_late_calls()
        ready = [seat for seat in self._seats if seat.wake_ms <= self.ms]
        if not ready:
            self.ms = min(seat.wake_ms for seat in self._seats)
            ready = [seat for seat in self._seats if seat.wake_ms <= self.ms]
        self._move(self.rng.choice(ready))
        self.ms += self.rng.choice((0, 0, 0, 1, 10, 30))

    def _move(self, seat: Seat) -> None:
        """Let one actor make its call, or go on to its next one."""
        answer: Any = None
        if seat.call is not None:
            self.note(seat.name)
            self.last_script = ""
            try:
                answer = seat.call()
            except KubemlError as caught:
                error = caught
                self._resume(seat, lambda: seat.actor.throw(error))
                return
            times = 4 if self.last_script in COUNTING else 1
            if self.happens("double", times=times):
                return  # the reply is lost: the client calls again
            if self.happens("late", times=times):
                due = self.ms + self.rng.choice(DELAYS_MS)
                self._late.append((due, seat.call))
            if self.happens("kill after"):
                self._kill(seat)
                return
        self._resume(seat, lambda: seat.actor.send(answer))
        if seat.call is not None and self.happens("stall"):
            seat.wake_ms = self.ms + self.rng.choice(PAUSES_MS)

    def _resume(self, seat: Seat, go_on: Callable[[], Any]) -> None:
        try:
            wish = go_on()
        except KubemlError as err:
            self.note(f"{seat.name} failed: {err}")
            self._kill(seat)
            return
        if isinstance(wish, int):
            seat.call, seat.wake_ms = None, self.ms + wish
        else:
            seat.call = wish

    def _run_late_calls(self) -> None:
        """Copies of calls that lingered in some buffer, although their client went on."""
        due = [call for at, call in self._late if at <= self.ms]
        self._late = [(at, call) for at, call in self._late if at > self.ms]
        for call in due:
            self.note("late copy of a call")
            with contextlib.suppress(KubemlError):
                call()

    # -- faults ------------------------------------------------------------------------------

    def _fault_of_the_turn(self) -> None:
        for fault in PER_TURN:
            if self.happens(fault):
                self.note(f"FAULT {fault}")
                getattr(self, f"_fault_{fault}")()

    def _fault_kill(self) -> None:
        self._kill(self.rng.choice(self._seats))

    def _fault_pause(self) -> None:
        seat = self.rng.choice(self._seats)
        seat.wake_ms = self.ms + self.rng.choice(PAUSES_MS)

    def _fault_flush(self) -> None:
        self._forget_keys()
        self.referee.books = Books()

    def _fault_snapshot(self) -> None:
        keys = self._keys()
        pipe = self._client.pipeline(transaction=True)
        for key in keys:
            pipe.pttl(key)
            pipe.dump(key)
        read = pipe.execute()
        saved = list(zip(keys, read[::2], read[1::2], strict=True))
        self._saved = [*self._saved[-2:], (saved, self.referee.saved())]

    def _fault_rollback(self) -> None:
        if not self._saved:
            return
        saved, books = self.rng.choice(self._saved)
        self._forget_keys()
        pipe = self._client.pipeline(transaction=True)
        for key, ttl_ms, value in saved:
            pipe.restore(key, max(0, ttl_ms), value)
        pipe.execute()
        self.referee.books = copy.deepcopy(books)

    def _fault_jump(self) -> None:
        self._offset_ms += self.rng.choice((-HOUR_MS, HOUR_MS, -2000, 2000, -10_000, 10_000))

    def _fault_stop(self) -> None:
        self.store.stop(self.referee.books.gen)

    def _kill(self, seat: Seat) -> None:
        seat.actor.close()
        seat.actor, seat.call = seat.make(self, seat.name), None
        seat.wake_ms = self.ms + self.rng.choice((10, 500, 3000, 8000))

    def _seat(self, make: Callable[["World", str], sim_actors.Actor], name: str) -> Seat:
        return Seat(name=name, make=make, actor=make(self, name))

    def _keys(self) -> list[bytes]:
        found: Any = self._client.keys(self.store.key("*"))
        return sorted(key for key in found if not key.endswith(b":clock"))

    def _forget_keys(self) -> None:
        if keys := self._keys():
            self._client.delete(*keys)

    # -- judging -----------------------------------------------------------------------------

    def _require_progress(self) -> None:
        if self._turn > MAX_TURNS:
            raise Violation(f"I3: no end after {MAX_TURNS} turns: {self.store.fields()}")
        if self.ms - self._calm_since_ms > BOUND_MS:
            raise Violation(
                f"I3: no end {BOUND_MS / 1000:g} s after the last fault: {self.store.fields()}"
            )

    def _after_the_end(self) -> None:
        """The end is the end, whatever comes late; the result is whole, and nothing is left."""
        ended = self.store.fields()
        self._num_faulty_turns = 0
        self.ms += 10_000
        for _ in range(30):
            self._take_turn()
        head = self.store.fields()
        for changing in (head, ended):  # whose turn it is to look means nothing any more
            changing.pop("owner", None)
            changing.pop("owner_dl", None)
        if head != ended:
            raise Violation(f"I4: the job changed after its end: {ended} became {head}")
        if head["state"] != "DONE" and not (head["state"] == "STOPPED" and self.faults["stop"]):
            raise Violation(f"I7: the job ended as {head['state']}: {head.get('reason')}")
        if head["state"] == "DONE":
            epochs = self.spec.epochs
            require_whole(self.referee.parts(head["w"]), epochs=epochs)
            if sorted(self.objects.checkpoints) != list(range(epochs + 1)):
                raise Violation(f"I5: checkpoints {sorted(self.objects.checkpoints)}")
            if sorted(self.objects.rows) != list(range(1, epochs + 1)):
                raise Violation(f"I5: history rows {sorted(self.objects.rows)}")
        eternal = [
            key for key in self._keys() if key.count(b":") == 4 and self._client.ttl(key) < 0
        ]
        if eternal:
            raise Violation(f"I6: chunks without an end: {eternal[:3]}")


def _spec(job_id: str, *, epochs: int, overlap: bool) -> JobSpec:
    return JobSpec(
        id=job_id,
        function="f",
        function_sha256="0" * 64,
        entry="main.py",
        dataset="d",
        dataset_version="v",
        epochs=epochs,
        batch_size=1,
        lr=0.1,
        overlap=overlap,
    )
