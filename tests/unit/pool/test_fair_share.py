"""Weighted max-min shares of a pool, and how whole workers add up to them over time."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeml.pool.fair_share import TURN_MS, Allotment, Claim, allotment, fair_shares

TICK_MS, STEP_MS, MAX_AGE_MS = 500, 50, 400


def shares_of(capacity: int, *jobs: tuple[float, int]) -> list[float]:
    claims = [Claim(id=f"j{n}", weight=w, demand=d) for n, (w, d) in enumerate(jobs)]
    shares = fair_shares(claims, capacity)
    return [round(shares[claim.id], 6) for claim in claims]


@pytest.mark.parametrize(
    ("capacity", "jobs", "shares"),
    [
        pytest.param(4, [(1, 8), (1, 8)], [2, 2], id="equal"),
        pytest.param(4, [(3, 8), (1, 8)], [3, 1], id="by weight"),
        pytest.param(4, [(1, 1), (1, 8)], [1, 3], id="nobody gets more than it can use"),
        pytest.param(10, [(8, 1), (1, 8), (1, 2)], [1, 7, 2], id="what is left goes to the others"),
        pytest.param(2, [(1, 1)] * 8, [0.25] * 8, id="less than one each"),
        pytest.param(5, [(1, 0), (1, 9)], [0, 5], id="who wants nothing"),
        pytest.param(9, [(1, 2), (5, 3)], [2, 3], id="enough for all"),
        pytest.param(0, [(1, 2)], [0], id="nothing to share"),
    ],
)
def test_shares(capacity: int, jobs: list[tuple[float, int]], shares: list[float]) -> None:
    assert shares_of(capacity, *jobs) == shares


@given(
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 20)), min_size=1, max_size=12),
)
def test_shares_use_all_there_is_and_favour_nobody(
    capacity: int, jobs: list[tuple[int, int]]
) -> None:
    shares = shares_of(capacity, *jobs)

    assert sum(shares) == pytest.approx(min(capacity, sum(d for _, d in jobs)), abs=1e-4)
    for (weight, demand), share in zip(jobs, shares, strict=True):
        assert share <= demand + 1e-6
        # Max-min: whoever has less than it can use has no less by weight than anybody else.
        if share < demand - 1e-4:
            others = [s / w for (w, _), s in zip(jobs, shares, strict=True)]
            assert share / weight >= max(others) - 1e-4


def given_to(claim: Claim, *others: Claim, capacity: int) -> Allotment:
    return allotment(claim, [claim, *others], capacity)


def looked_at(*, demand: int, live: int, credit_ms: float, lean: int) -> Claim:
    """A claim after a tick in which the job had as many workers as it has now."""
    return Claim(
        id="a", demand=demand, live=live, credit_ms=credit_ms, lean=lean,
        elapsed_ms=TICK_MS, used_ms=live * TICK_MS,
    )  # fmt: skip


def test_where_there_is_enough_nobody_is_bounded_and_debts_fade() -> None:
    one = Claim(id="a", demand=2, live=2, credit_ms=-900.0, lean=-1, elapsed_ms=TICK_MS)

    assert given_to(one, Claim(id="b", demand=2), capacity=4) == Allotment(
        most=None, credit_ms=-400.0, lean=0
    )


@pytest.mark.parametrize(
    ("credit_ms", "lean", "live", "most"),
    [
        pytest.param(0.0, 0, 2, 2, id="it begins with more"),
        pytest.param(-TURN_MS + 300, 1, 2, 2, id="not yet a turn too much"),
        pytest.param(-TURN_MS + 100, 1, 2, 1, id="a turn too much"),
        pytest.param(-300.0, -1, 1, 1, id="not yet even"),
        pytest.param(-200.0, -1, 1, 2, id="even"),
    ],
)
def test_a_share_of_one_and_a_half_is_two_or_one(
    credit_ms: float, lean: int, live: int, most: int
) -> None:
    one = looked_at(demand=2, live=live, credit_ms=credit_ms, lean=lean)

    result = given_to(one, Claim(id="b", demand=2, live=3 - live, tickets=1), capacity=3)

    assert result.most == most
    assert result.credit_ms == credit_ms + (1.5 - live) * TICK_MS


@pytest.mark.parametrize(
    ("credit_ms", "lean", "live", "most"),
    [
        pytest.param(0.0, 0, 2, 2, id="just that"),
        pytest.param(TURN_MS - 1000, 0, 1, 2, id="not yet a turn too little"),
        pytest.param(TURN_MS - 500, 0, 1, 3, id="a turn too little"),
        pytest.param(900.0, 1, 3, 3, id="not yet even"),
        pytest.param(500.0, 1, 3, 2, id="even"),
        pytest.param(-TURN_MS, 0, 2, 1, id="a turn too much"),
    ],
)
def test_a_share_of_two_is_two_but_for_what_is_to_be_put_right(
    credit_ms: float, lean: int, live: int, most: int
) -> None:
    one = looked_at(demand=4, live=live, credit_ms=credit_ms, lean=lean)

    assert given_to(one, Claim(id="b", demand=4, live=4 - live), capacity=4).most == most


def test_who_is_due_much_more_and_lacks_workers_goes_first() -> None:
    one = Claim(id="a", demand=2, live=2, credit_ms=-500.0, lean=1, elapsed_ms=0.0)

    def beside(live: int, credit_ms: float) -> int | None:
        other = Claim(id="b", demand=2, live=live, tickets=1, credit_ms=credit_ms)
        return given_to(one, other, capacity=3).most

    assert beside(1, 9000.0) == 1
    assert beside(2, 9000.0) == 2  # it has what it is due, and more
    assert beside(1, 5000.0) == 2


def test_nobody_rests_while_workers_are_idle() -> None:
    one = Claim(id="a", demand=1, credit_ms=-9000.0, lean=-1, elapsed_ms=TICK_MS)
    others = [Claim(id=f"b{n}", demand=1, live=n == 0) for n in range(4)]

    assert given_to(one, *others, capacity=2).most == 1


def test_who_did_not_look_for_long_is_not_charged_for_it() -> None:
    hour_ms = 3_600_000.0
    one = Claim(id="a", demand=2, live=2, elapsed_ms=hour_ms, used_ms=2 * hour_ms)
    two = Claim(id="a", demand=2, live=2, elapsed_ms=-50.0, used_ms=700.0)

    assert given_to(one, Claim(id="b", demand=2, live=1), capacity=3).credit_ms == -1000.0
    assert given_to(two, Claim(id="b", demand=2, live=1), capacity=3).credit_ms == 0.0


def test_what_it_had_between_two_looks_is_booked() -> None:
    """A turn may be over before anybody looks, and its workers are elsewhere then."""
    one = Claim(id="a", demand=2, live=0, elapsed_ms=1000.0, used_ms=1600.0)

    assert given_to(one, Claim(id="b", demand=2, live=2), capacity=2).credit_ms == 1000.0 - 1600.0


@dataclass
class SimulatedJob:
    """A job of a simulated pool: its tickets, its workers, and what it had so far."""

    id: str
    weight: int
    slots: int
    round_ms: int
    leaves_every: int = 0  # rounds after which a worker is given back: an epoch's end
    rounds: int = 0
    live: list[int] = field(default_factory=list)  # when each worker's slot is done
    tickets: int = 0
    credit_ms: float = 0.0
    lean: int = 0
    most: int | None = None
    had_ms: float = 0.0
    books_at: int | None = None
    books_had_ms: float = 0.0
    longest_wait_ms: int = 0
    waits_since: int | None = 0

    def claim(self, now: int) -> Claim:
        return Claim(
            id=self.id, weight=self.weight, demand=self.slots, live=len(self.live),
            tickets=self.tickets, credit_ms=self.credit_ms, lean=self.lean,
            elapsed_ms=0.0 if self.books_at is None else now - self.books_at,
            used_ms=self.had_ms - self.books_had_ms,
        )  # fmt: skip

    def note_wait(self, now: int) -> None:
        if self.live:
            self.waits_since = None
        elif self.waits_since is None:
            self.waits_since = now
        else:
            self.longest_wait_ms = max(self.longest_wait_ms, now - self.waits_since)


class SimulatedPool:
    """A queue of tickets, workers that stay for a slot at a time, keepers that look when they can.

    What is looked at may be 400 ms old, and from look to look half a second passes, or up to
    ``longest_ms``: as in a pool of many jobs on a slow machine.
    """

    def __init__(
        self, jobs: list[SimulatedJob], *, workers: int, longest_ms: int = TICK_MS, seed: int = 0
    ) -> None:
        self.longest_ms = longest_ms
        self.rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self.jobs, self.workers, self.free = jobs, workers, workers
        self.queue: list[SimulatedJob] = []
        self.next_tick = {job.id: self.rng.randrange(0, TICK_MS, STEP_MS) for job in jobs}
        self.seen: dict[str, tuple[Claim, float]] = {}  # each job's claim, and what it had so far
        self.seen_at = -MAX_AGE_MS

    def run(self, *, minutes: float) -> None:
        for now in range(0, int(minutes * 60_000), STEP_MS):
            for job in self.jobs:
                job.had_ms += STEP_MS * len(job.live)
                self.end_slots(job, now)
            for job in self.jobs:
                if now >= self.next_tick[job.id]:
                    passes_ms = self.rng.randrange(TICK_MS, self.longest_ms + 1, STEP_MS)
                    self.next_tick[job.id] = now + passes_ms
                    self.tick(job, now)
            self.hand_out(now)
            for job in self.jobs:
                job.note_wait(now)

    def end_slots(self, job: SimulatedJob, now: int) -> None:
        for done in [at for at in job.live if at <= now]:
            job.live.remove(done)
            job.rounds += 1
            is_over = bool(job.leaves_every) and job.rounds % job.leaves_every == 0
            if is_over or (job.most is not None and len(job.live) >= job.most):
                self.free += 1
            else:
                job.live.append(now + job.round_ms)

    def tick(self, job: SimulatedJob, now: int) -> None:
        if now - self.seen_at >= MAX_AGE_MS:
            self.seen_at = now
            self.seen = {other.id: (other.claim(now), other.had_ms) for other in self.jobs}
        claims = [claim for claim, _ in self.seen.values()]
        claim, had_ms = self.seen[job.id]
        result = allotment(claim, claims, self.workers)
        job.most, job.credit_ms, job.lean = result.most, result.credit_ms, result.lean
        job.books_at, job.books_had_ms = self.seen_at, had_ms
        most = job.slots if job.most is None else min(job.slots, job.most)
        if len(job.live) + job.tickets < most:
            self.queue.append(job)
            job.tickets += 1

    def hand_out(self, now: int) -> None:
        while self.free and self.queue:
            job = self.queue.pop(0)
            job.tickets -= 1
            if job.most is None or len(job.live) < job.most:
                job.live.append(now + job.round_ms)
                self.free -= 1


def require_fair(
    jobs: list[SimulatedJob], *, workers: int, minutes: float, within_ms: float = 0.0
) -> None:
    claims = [Claim(id=j.id, weight=j.weight, demand=j.slots) for j in jobs]
    shares = fair_shares(claims, workers)
    for job in jobs:
        due_ms = shares[job.id] * minutes * 60_000
        within = pytest.approx(due_ms, rel=0.15, abs=within_ms)
        assert job.had_ms == within, (job.id, job.had_ms, due_ms)


@pytest.mark.parametrize(
    ("workers", "jobs"),
    [
        pytest.param(2, [(1, 1, 100)] * 20, id="20 equal jobs on 2 workers"),
        pytest.param(2, [(w, 2, 100) for w in (1, 1, 2, 2, 4)], id="weights"),
        pytest.param(3, [(1, 8, 100), (1, 8, 100)], id="one and a half each"),
        pytest.param(4, [(1, 4, 50), (1, 4, 9000), (2, 4, 700)], id="long and short rounds"),
        pytest.param(2, [(10, 1, 100), *[(1, 1, 100)] * 9], id="one that weighs more"),
        pytest.param(5, [(1, 1, 100), (1, 8, 100), (3, 2, 300)], id="small demands"),
        pytest.param(2, [(1, 2, 100), (1, 2, 100), (2, 2, 100), (4, 2, 100, 20)], id="an even one"),
    ],
)
def test_over_time_every_job_has_its_share(workers: int, jobs: list[tuple[int, ...]]) -> None:
    minutes = 10.0
    pool = [
        SimulatedJob(f"j{n}", *job)  # weight, slots, ms of a round, rounds between two pauses
        for n, job in enumerate(jobs)
    ]

    SimulatedPool(pool, workers=workers).run(minutes=minutes)

    require_fair(pool, workers=workers, minutes=minutes)
    # Nothing lies idle (but for the ticks that it takes to hand over), and nobody starves.
    assert sum(job.had_ms for job in pool) >= 0.9 * workers * minutes * 60_000
    assert max(job.longest_wait_ms for job in pool) < 60_000


@pytest.mark.parametrize("slot_ms", [300, 500])
@pytest.mark.parametrize("seed", range(4))
def test_every_job_of_a_crowd_has_its_share_within_a_turn(seed: int, slot_ms: int) -> None:
    """Its turns are no longer than the time between two looks: nothing may be left to chance."""
    minutes = 3.5
    pool = [SimulatedJob(f"j{n}", (1, 2, 3)[n % 3], 2, slot_ms, 6) for n in range(20)]

    SimulatedPool(pool, workers=2, longest_ms=3 * TICK_MS, seed=seed).run(minutes=minutes)

    require_fair(pool, workers=2, minutes=minutes, within_ms=2 * TURN_MS)
