"""Copies of slow slots: who may take one, whose work counts, and what becomes of the other."""

from brokers.rounds.answers import Wait, Work
from tests.protocol.jobs import LEASE_MS, ScriptedJob


def slow(job: ScriptedJob, *, hedge: int = 1, after_ms: int = 2500) -> tuple[Work, Work]:
    """Two slots: ``fast`` has handed in its own after 1 s, ``slow`` still holds the other."""
    job.begin_planned(slots=2, hedge=hedge)
    fast, held = job.join("fast"), job.join("slow")
    job.step_clock(1000)
    job.contribute("fast", fast, "first")
    job.step_clock(after_ms - 1000)
    beat(job, "slow", held)
    return fast, held


def beat(job: ScriptedJob, token: str, work: Work) -> str:
    return job.store.beat(job.gen, token=token, slot=work.slot, rid=work.rid)


def copy(job: ScriptedJob) -> Work:
    answer = job.take("fast")
    assert isinstance(answer, Work), answer
    assert answer.is_copy
    return answer


def test_an_idle_worker_takes_a_copy_of_the_slot_that_runs_long(clocked_job: ScriptedJob) -> None:
    _, held = slow(clocked_job)

    work = copy(clocked_job)

    assert (work.slot, work.rid, work.attempt) == (held.slot, held.rid, held.attempt)
    assert clocked_job.take("fast") == work  # a repeated call
    assert clocked_job.take("slow") == held


def test_nobody_copies_a_slot_before_it_has_run_half_as_long_again_as_the_others(
    clocked_job: ScriptedJob,
) -> None:
    slow(clocked_job, after_ms=1400)

    waits = clocked_job.take("fast")
    assert isinstance(waits, Wait)
    assert waits.due_ms == 100
    clocked_job.step_clock(waits.due_ms)
    copy(clocked_job)


def test_nobody_copies_in_the_first_second(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2, hedge=1)
    fast = job.join("fast")
    job.join("slow")
    job.contribute("fast", fast)
    job.step_clock(999)

    assert isinstance(job.take("fast"), Wait)
    job.step_clock(1)
    copy(job)


def test_nobody_copies_where_the_job_does_not_want_it(clocked_job: ScriptedJob) -> None:
    slow(clocked_job, hedge=0)

    assert isinstance(clocked_job.take("fast"), Wait)


def test_nobody_copies_while_other_jobs_wait(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    slow(job, after_ms=1400)
    assert isinstance(job.take("fast"), Wait)
    job.step_clock(100)

    assert isinstance(job.take("fast", queue_length=1), Wait)
    copy(job)


def test_a_slot_is_copied_once(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=3, hedge=1)
    first, second = job.join("a"), job.join("b")
    held = job.join("slow")
    job.contribute("a", first)
    job.contribute("b", second)
    job.step_clock(2000)

    assert isinstance(job.take("a"), Work)
    assert isinstance(job.take("b"), Wait)

    # Until whoever has it is gone.
    job.step_clock(LEASE_MS - 1000)
    beat(job, "slow", held)
    job.step_clock(2000)
    again = job.take("b")
    assert isinstance(again, Work)
    assert again.is_copy


def test_the_copy_counts_if_it_is_first(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    _, held = slow(job)
    work = copy(job)

    assert job.contribute("fast", work, "second") == "OK"

    assert beat(job, "slow", held) == "LOST"
    assert job.contribute("slow", held, "late") == "DUPLICATE"
    assert job.advance(["first", "second"])[0] == "OK"


def test_the_copy_is_dropped_if_it_is_second(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    _, held = slow(job)
    work = copy(job)

    assert job.contribute("slow", held, "second") == "OK"

    assert beat(job, "fast", work) == "LOST"
    assert job.contribute("fast", work, "late") == "DUPLICATE"
    assert job.advance(["first", "second"])[0] == "OK"


def test_beats_keep_both_leases(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    _, held = slow(job)
    work = copy(job)
    for _ in range(5):
        job.step_clock(LEASE_MS - 1000)
        assert (beat(job, "slow", held), beat(job, "fast", work)) == ("OK", "OK")

    assert job.contribute("fast", work) == "OK"


def test_whoever_has_a_copy_has_the_slot_when_the_first_one_dies(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    _, held = slow(job)
    work = copy(job)
    job.step_clock(LEASE_MS - 1000)
    beat(job, "fast", work)
    job.step_clock(1500)

    # The other's lease has run out: there is nothing to take, but another copy.
    new = job.take("new", job.ticket())
    assert isinstance(new, Work)
    assert new.is_copy

    assert beat(job, "slow", held) == "LOST"
    assert beat(job, "fast", work) == "OK"
    assert job.contribute("fast", work) == "OK"
    assert job.store.snapshot().head.retries == 1


def test_a_slot_given_up_goes_to_whoever_has_a_copy(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    _, held = slow(job)
    work = copy(job)

    job.store.kick(job.gen, held.rid, slot=held.slot, who="slow", kind="drain", why="drained")

    assert job.lease(work.slot)["t"] == "fast"
    assert job.contribute("fast", work) == "OK"


def test_a_copy_given_up_leaves_the_slot_where_it_is(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    _, held = slow(job)
    work = copy(job)

    job.store.kick(job.gen, work.rid, slot=work.slot, who="fast", kind="drain", why="drained")

    assert beat(job, "slow", held) == "OK"
    assert job.contribute("slow", held) == "OK"


def test_an_error_in_a_copy_counts(clocked_job: ScriptedJob) -> None:
    job = clocked_job
    slow(job)
    work = copy(job)

    answer = job.store.kick(
        job.gen, work.rid, slot=work.slot, who="fast", kind="error", why="raised"
    )

    assert answer == "OK"
    assert job.lease(work.slot)["e"] == 1
    assert job.lease(work.slot)["t"] == "slow"
