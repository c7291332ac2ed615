"""How many may take part: shares of the pool, the user's cap, and new jobs that come first."""

import pytest

from brokers.answers import Leave, Wait, Work
from tests.protocol.jobs import ScriptedJob


def share(job: ScriptedJob, most: int | None) -> None:
    job.store.share(job.gen, most=most, credit_ms=0.0, lean=0)


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

    job.store.share("7", most=0, credit_ms=1.0, lean=1)

    assert job.everything() == before
