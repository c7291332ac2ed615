"""How many may take part: shares of the pool, the user's cap, and new jobs that come first."""

import pytest

from brokers.rounds.answers import Leave, Wait, Work
from tests.protocol.jobs import LEASE_MS, ScriptedJob


def share(job: ScriptedJob, most: int | None) -> None:
    job.store.share(job.gen, most=most, credit_ms=0.0, lean=0, at_ms=0, used_ms=0)


def cap(job: ScriptedJob, workers: int) -> None:
    assert job.store.scale(job.gen, 1, 1, 16, workers) == "OK"


def test_who_exceeds_the_share_leaves_when_its_slot_is_done(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    first, second = job.join("a"), job.join("b")
    share(job, 1)

    assert job.take("a") == first  # the slot in hand is not taken away
    job.contribute("a", first)
    job.contribute("b", second)

    assert job.take("a") == Leave(why="share")
    assert isinstance(job.take("b"), Work)  # it is the only one now


def test_a_share_of_none_lets_everybody_go_and_nobody_in(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    job.contribute("a", job.join("a"))
    share(job, 0)

    assert job.take("a") == Leave(why="share")
    assert job.take("b", job.ticket()) == Leave(why="surplus")
    job.client.delete(job.store.key("d"))
    assert job.store.send(job.gen, "ticket", burst=9) == "FULL"

    share(job, None)
    assert job.store.send(job.gen, "ticket", burst=9) == "OK"
    assert isinstance(job.take("b", "ticket"), Work)


def test_send_stops_at_the_share(job: ScriptedJob) -> None:
    job.begin_planned(slots=4)
    share(job, 2)

    answers = [job.store.send(job.gen, f"t{n}", burst=9) for n in range(3)]

    assert answers == ["OK", "OK", "FULL"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_users_cap_bounds_the_participants(job: ScriptedJob, workers: int) -> None:
    job.begin_planned(slots=4)
    cap(job, workers)

    answers = [job.take(who, job.ticket()) for who in "abcd"]

    assert sum(isinstance(answer, Work) for answer in answers) == workers
    assert answers[-1] == Leave(why="surplus")


def test_a_cap_of_none_is_no_cap(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    cap(job, 0)

    assert isinstance(job.take("a", job.ticket()), Work)
    assert isinstance(job.take("b", job.ticket()), Work)


def test_the_lower_of_share_and_cap_counts(job: ScriptedJob) -> None:
    job.begin_planned(slots=4)
    cap(job, 1)
    share(job, 3)

    assert job.store.send(job.gen, "one", burst=9) == "OK"
    assert job.store.send(job.gen, "two", burst=9) == "FULL"


def test_a_smaller_share_rings(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    before = job.num_rings()

    share(job, 2)
    assert job.num_rings() == before + 1
    share(job, 2)
    share(job, 3)
    share(job, None)
    assert job.num_rings() == before + 1


def test_a_new_job_gets_a_worker_at_the_end_of_a_slot(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")

    assert job.take("a", queue_length=1, num_first=1) == work
    job.contribute("a", work)

    assert job.take("a", queue_length=1, num_first=1) == Leave(why="yield")


def test_a_new_job_does_not_give_its_own_worker_away(job: ScriptedJob) -> None:
    job.begin()
    work = job.join("a", stage="init")
    job.contribute("a", work)

    assert isinstance(job.take("a", stage="init", queue_length=2, num_first=2), Wait)


def test_where_shares_are_laid_down_nobody_yields_by_the_clock(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    job.contribute("a", job.join("a"))
    share(job, 1)

    assert isinstance(job.take("a", queue_length=1, held_ms=9000), Work)


def test_share_after_the_end_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned()
    job.store.finish(job.gen, job.rid, "", to="FAILED", reason="why")
    before = job.everything()

    share(job, 0)

    assert job.everything() == before


def test_share_of_another_generation_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned()
    before = job.everything()

    job.store.share("7", most=0, credit_ms=1.0, lean=1, at_ms=1, used_ms=1)

    assert job.everything() == before


def used_ms(job: ScriptedJob) -> int:
    """The worker time up to the last change of the number of participants."""
    return int(job.head["used_ms"])


def test_worker_time_goes_from_joining_to_the_end_of_the_stage(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2, rounds=1)
    job.step_clock(1000)
    first = job.join("a")
    job.step_clock(100)
    second = job.join("b")
    job.step_clock(10)
    job.contribute("a", first, "one")
    assert isinstance(job.take("a"), Wait)
    job.step_clock(5)  # who waits for others is the job's all the same
    job.contribute("b", second, "two")
    job.step_clock(3)

    assert job.advance(["one", "two"]) == ("OK", "END")

    assert used_ms(job) == 100 + 2 * 18
    job.step_clock(1000)
    job.store.finish(job.gen, job.rid, "", to="DONE")
    assert used_ms(job) == 100 + 2 * 18


def test_worker_time_goes_on_from_round_to_round(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1, rounds=2)
    for cid in ("one", "two"):
        work = job.join("a") if cid == "one" else job.take("a")
        assert isinstance(work, Work)
        job.step_clock(10)
        job.contribute("a", work, cid)
        job.step_clock(1)
        assert job.advance([cid])[0] == "OK"

    assert used_ms(job) == 22


def test_worker_time_ends_with_who_leaves(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=3)
    job.contribute("a", job.join("a"))
    job.join("b")
    job.step_clock(20)
    share(job, 1)

    assert job.take("a") == Leave(why="share")
    assert job.take("a") == Leave(why="doubled")
    assert used_ms(job) == 40


def test_worker_time_of_the_lost_counts_until_they_are_given_up(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2)
    job.join("dead")
    job.step_clock(LEASE_MS + 1)

    job.join("heir")

    assert used_ms(job) == LEASE_MS + 1


def given_up_too_early(job: ScriptedJob, who: str) -> Work:
    """A participant whose lease ran out a second ago, which was noticed; nobody has its slot."""
    work = job.begin_planned(slots=1, rounds=1).join(who)
    job.step_clock(LEASE_MS + 1)
    assert job.store.send(job.gen, "ticket", burst=9) == "OK"  # it counts who is there
    job.step_clock(1000)
    return work


def test_worker_time_counts_again_from_a_late_beat(clocked_job: ScriptedJob) -> None:
    job, work = clocked_job, given_up_too_early(clocked_job, "slow")

    assert job.store.beat(job.gen, token="slow", slot=0, rid=work.rid) == "OK"

    job.step_clock(5)
    job.store.finish(job.gen, job.rid, "", to="FAILED", reason="why")
    assert used_ms(job) == LEASE_MS + 6


def test_worker_time_counts_again_from_a_late_contribution(clocked_job: ScriptedJob) -> None:
    job, work = clocked_job, given_up_too_early(clocked_job, "slow")

    assert job.contribute("slow", work) == "OK"

    job.step_clock(5)
    job.store.finish(job.gen, job.rid, "", to="FAILED", reason="why")
    assert used_ms(job) == LEASE_MS + 6


def test_a_clock_that_steps_back_takes_no_worker_time_away(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2)
    job.join("a")
    job.step_clock(10)
    job.join("b")
    job.step_clock(-LEASE_MS // 2)
    job.store.finish(job.gen, job.rid, "", to="FAILED", reason="why")

    assert used_ms(job) == 10


def test_books_go_up_to_when_the_pool_was_read(job: ScriptedJob) -> None:
    job.begin_planned()

    job.store.share(job.gen, most=1, credit_ms=-7.4, lean=-1, at_ms=1234.5, used_ms=99)

    head = job.head
    assert (head["allot"], head["credit"], head["lean"]) == ("1", "-7", "-1")
    assert (head["books_at"], head["books_used_ms"]) == ("1234", "99")
