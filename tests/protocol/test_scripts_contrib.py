"""CONTRIB, BEAT and KICK: what a slot's holder may do, and nobody else."""

import time

import pytest

from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.snapshot import Knock
from brokers.wire import new_id
from tests.protocol.jobs import MAX_ERRORS, ScriptedJob, make_contribution


def test_contrib_counts_what_is_in(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    first, second = job.join("a"), job.join("b")

    answers = [
        job.store.contribute(
            "1", work.rid, make_contribution(slot=work.slot, token=token, cid=token)
        )
        for work, token in ((first, "a"), (second, "b"))
    ]

    bell = job.take("b").bell
    assert answers == [("OK", Wait(bell=bell)), ("OK", Wait(bell=bell, is_complete=True))]
    assert job.store.snapshot().is_complete


def test_contrib_repeated_is_ok_and_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")
    assert job.contribute("a", work, "mine") == "OK"
    before = job.everything()

    answers = [job.contribute("a", work, "mine") for _ in range(3)]

    assert answers == ["OK"] * 3
    assert job.everything() == before


def test_contrib_of_a_slot_that_is_in_is_a_duplicate(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")
    job.contribute("a", work, "first")
    before = job.everything()

    assert job.contribute("a", work, "second") == "DUPLICATE"
    assert job.contribute("stranger", work, "third") == "DUPLICATE"
    assert job.everything() == before


def test_contrib_without_the_lease_is_lost(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")
    before = job.everything()

    assert job.contribute("stranger", work) == "LOST"
    assert job.store.contribute("1", work.rid, make_contribution(slot=1, token="a"))[0] == "LOST"
    assert job.store.contribute("1", work.rid, make_contribution(slot=7, token="a"))[0] == "LOST"
    assert job.everything() == before


def test_contrib_gives_the_lease_back(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")

    job.contribute("a", work)

    assert job.lease(0)["t"] == ""
    assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "LOST"


def test_contrib_of_an_expired_lease_counts_if_nobody_took_the_slot(
    clocked_job: ScriptedJob,
) -> None:
    job = clocked_job.begin_planned(slots=1)
    work = job.join("a")
    job.step_clock(60_000)

    assert job.contribute("a", work) == "OK"


def test_contrib_of_an_earlier_round_is_stale(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.contribute("a", work, "first")
    job.advance(["first"])
    assert isinstance(job.take("a"), Work)
    before = job.everything()

    # The same token holds the same slot again: the rid alone tells the rounds apart.
    assert job.contribute("a", work, "first") == "STALE"
    assert job.everything() == before


def test_contrib_of_something_unreadable_is_refused(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")

    answers = [
        job.store._run("contrib", "1", "a", work.rid, 0, "cid", text)[0]
        for text in ("", "{", "7", "[]", '{"cid": "another"}', '{"cid": 5}')
    ]

    assert answers == ["LOST"] * 6
    assert job.everything()["c"] == {}


def test_contrib_to_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    before = job.everything()
    job.gen = "2"

    assert job.contribute("a", work) == "GONE"
    assert job.everything() == before


def test_beat_renews_the_lease(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2)
    work = job.join("a")

    for _ in range(4):
        job.step_clock(5000)
        assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "OK"

    assert job.join("b").slot == 1
    assert job.store.snapshot().head.retries == 0


def test_beat_of_a_lost_slot_is_lost(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    work = job.join("a")
    job.step_clock(6001)
    job.join("b")
    before = job.lease(0)

    assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "LOST"
    assert job.lease(0) == before


def test_beat_of_an_earlier_round_is_lost(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.contribute("a", work, "first")
    job.advance(["first"])
    job.take("a")

    assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "LOST"


def test_beat_tells_to_stop(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.store.stop("1")

    assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "STOP"


def test_beat_tells_to_stop_when_the_job_has_ended(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.store.finish("1", job.rid, "", to="FAILED", reason="why")

    assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "STOP"


def test_beat_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")

    assert job.store.beat("2", token="a", slot=0, rid=work.rid) == "GONE"


def test_kick_gives_a_drained_slot_back_at_once(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")

    answer = job.store.kick("1", work.rid, slot=0, who="a", kind="drain", why="bye")

    assert answer == "OK"
    assert job.take("b", job.ticket(), preferred=[0]).slot == 0
    assert job.lease(0)["e"] == 0
    assert job.lease(0)["l"] == 0


def test_kick_rings_the_bell(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    rings = job.num_rings()

    job.store.kick("1", work.rid, slot=0, who="a", kind="error", why="")

    assert job.num_rings() == rings + 1


def test_kick_drops_a_bad_contribution(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.contribute("a", work, "bad")

    answer = job.store.kick("1", work.rid, slot=0, who="bad", kind="bad", why="NaN")

    assert answer == "OK"
    assert job.everything()["c"] == {}
    assert job.lease(0)["e"] == 1
    again = job.take("a")
    assert isinstance(again, Work)
    assert (again.slot, again.attempt) == (0, 2)
    assert job.contribute("a", again, "good") == "OK"


def test_kick_of_another_contribution_does_nothing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.contribute("a", work, "good")
    before = job.everything()

    assert job.store.kick("1", work.rid, slot=0, who="bad", kind="bad", why="") == "NONE"
    assert job.everything() == before


def test_kick_of_anothers_lease_does_nothing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    before = job.everything()

    answers = [
        job.store.kick("1", work.rid, slot=0, who="stranger", kind=kind, why="")
        for kind in ("error", "drain", "bad")
    ]

    assert answers == ["NONE"] * 3
    assert job.everything() == before


@pytest.mark.parametrize("kind", ["error", "drain"])
def test_kick_without_a_name_drops_no_lease(job: ScriptedJob, kind: str) -> None:
    job.begin_planned(slots=1)

    assert job.store.kick("1", job.rid, slot=0, who="", kind=kind, why="") == "NONE"


def test_kick_repeated_counts_one_error(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.store.kick("1", work.rid, slot=0, who="a", kind="error", why="boom")
    before = job.everything()

    answer = job.store.kick("1", work.rid, slot=0, who="a", kind="error", why="boom")

    assert answer == "NONE"
    assert job.everything() == before


def test_kick_of_an_earlier_round_is_stale(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.contribute("a", work, "first")
    job.advance(["first"])
    job.take("a")
    before = job.everything()

    assert job.store.kick("1", work.rid, slot=0, who="a", kind="drain", why="") == "STALE"
    assert job.everything() == before


def test_kick_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    before = job.everything()

    assert job.store.kick("2", work.rid, slot=0, who="a", kind="error", why="") == "GONE"
    assert job.everything() == before


def test_kick_fails_the_job_after_too_many_errors(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)

    answers = []
    work = job.join("a")
    for number in range(MAX_ERRORS):
        why = f"Traceback: boom {number}"
        answers.append(job.store.kick("1", work.rid, slot=0, who="a", kind="error", why=why))
        job.take("a")

    assert answers == ["OK", "OK", "FAILED"]
    assert job.state == "FAILED"
    assert job.head["reason"] == "Traceback: boom 2"
    assert job.rid == ""
    assert job.everything()["p"] == []


def test_kick_counts_bad_contributions_as_errors(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)

    work = job.join("a")
    for number in range(MAX_ERRORS):
        job.contribute("a", work, f"c{number}")
        job.store.kick("1", work.rid, slot=0, who=f"c{number}", kind="bad", why="NaN")
        job.take("a")

    assert job.state == "FAILED"


def test_kick_counts_errors_of_each_slot_apart(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    job.client.zadd(job.store.key("p"), {"a": time.time() * 1000})

    for slot in (0, 1):
        for _ in range(MAX_ERRORS - 1):
            work = job.take("a", preferred=[slot])
            assert isinstance(work, Work)
            job.store.kick("1", work.rid, slot=slot, who="a", kind="error", why="")

    assert job.state == "RUN"


def test_drains_never_fail_the_job(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)

    job.join("a")
    for _ in range(MAX_ERRORS * 3):
        answer = job.store.kick("1", job.rid, slot=0, who="a", kind="drain", why="")
        assert answer == "OK"
        job.take("a")

    assert job.state == "RUN"


def test_contrib_after_the_lease_was_kicked_is_lost(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.store.kick("1", work.rid, slot=0, who="a", kind="error", why="")

    assert job.contribute("a", work) == "LOST"


def test_a_participant_paused_past_everything_is_sent_away(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.step_clock(20_000)
    cids = job.fill()
    job.advance(cids)

    assert job.contribute("a", work) == "STALE"
    assert job.take("a") == Leave(why="doubled")


def test_the_bell_ends_a_wait(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.contribute("a", work, "first")
    waiting = job.take("a")
    assert isinstance(waiting, Wait)
    job.advance(["first"], new_rid=new_id())

    job.store.wait_for_bell(waiting.bell, block_ms=60_000)

    assert isinstance(job.take("a"), Work)


def test_contrib_knocks_once_for_parameter_servers(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")
    other = job.join("b")
    assert job.store.wait_for_knock("0-0", block_ms=1) == Knock(id="0-0", left=-1)

    job.contribute("a", work, "mine")
    knock = job.store.wait_for_knock("0-0", block_ms=2000)
    job.contribute("a", work, "mine")  # its reply was lost

    assert knock.id != "0-0"
    assert knock.left == 1
    assert job.store.wait_for_knock(knock.id, block_ms=1) == Knock(id=knock.id, left=-1)

    job.contribute("b", other, "theirs")
    assert job.store.wait_for_knock(knock.id, block_ms=2000).left == 0
    assert job.store.wait_for_knock("0-0", block_ms=2000).left == 0


def test_wait_says_whether_the_round_is_complete(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    first, second = job.join("a"), job.join("b")
    job.contribute("a", first, "first")
    waiting = job.take("a")
    job.contribute("b", second, "second")

    assert isinstance(waiting, Wait)
    assert not waiting.is_complete
    assert job.take("a") == Wait(bell=waiting.bell, is_complete=True)


def test_contrib_of_enormous_length_is_refused(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")

    assert job.contribute("a", work, "c1", worker="w" * 100_000) == "LOST"
    assert job.store.snapshot().contributions == {}
