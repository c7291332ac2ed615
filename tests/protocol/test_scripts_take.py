"""TAKE: who is given which slot, and who is sent away."""

import pytest

from brokers.rounds.answers import Leave, Wait, Work
from brokers.wire import new_id
from tests.protocol.jobs import MAX_LOST, ScriptedJob


def test_take_gives_a_slot_with_all_it_needs(job: ScriptedJob) -> None:
    weights = job.begin(state="PLAN", ver=1).stage()
    job.client.hset(job.store.key("h"), "w", weights.to_json())
    job.client.hset(job.store.key("o"), "1", "reference")
    job.plan(slots=2, rounds=3)

    first, second = job.join("a"), job.join("b")

    assert first == Work(
        slot=0,
        rid=job.rid,
        epoch=1,
        round_index=0,
        version=1,
        weights=weights,
        num_slots=2,
        attempt=1,
        optimizer="",
    )
    assert (second.slot, second.optimizer) == (1, "reference")


def test_take_repeated_gives_the_same_slot_again(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    ticket = job.ticket()
    first = job.take("a", ticket)
    before = job.everything()["c"], job.lease(0)["n"], job.head["retries"]

    again = [job.take("a", ticket) for _ in range(3)]

    assert again == [first] * 3
    assert before == (job.everything()["c"], job.lease(0)["n"], job.head["retries"])
    assert job.lease(1) == {}


def test_take_gives_no_slot_twice_while_its_lease_is_valid(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2)
    work = job.join("a")
    job.step_clock(5_999)

    other = job.join("b")

    assert (work.slot, other.slot) == (0, 1)
    assert job.lease(0)["t"] == "a"


def test_take_gives_no_slot_that_has_contributed(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")
    assert job.contribute("a", work) == "OK"

    other = job.take("a", preferred=[work.slot])

    assert isinstance(other, Work)
    assert other.slot == 1


def test_take_prefers_the_slots_held_before(job: ScriptedJob) -> None:
    job.begin_planned(slots=4)

    work = job.join("a", preferred=[9, 3, 1])

    assert work.slot == 3


def test_take_tells_to_wait_when_every_slot_is_taken(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")
    job.join("b")
    job.contribute("a", work)

    answer = job.take("a")

    assert isinstance(answer, Wait)
    assert job.client.xrevrange(job.store.bell_key, count=1)[0][0].decode() == answer.bell


def test_take_sends_a_doubled_message_away(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    ticket = job.ticket()
    assert isinstance(job.take("a", ticket), Work)

    redelivered = job.take("b", ticket)

    assert redelivered == Leave(why="doubled")
    assert job.lease(1) == {}
    assert job.client.zscore(job.store.key("p"), "b") is None


def test_take_sends_a_surplus_participant_away(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    tickets = [job.ticket() for _ in range(3)]
    works = [job.take(f"early-{i}", ticket) for i, ticket in enumerate(tickets[:2])]
    job.client.zadd(job.store.key("d"), {"once more": 0})
    works.append(job.take("third", tickets[2]))

    answer = job.take("fourth", "once more")

    assert [type(work) for work in works] == [Work] * 3
    assert answer == Leave(why="surplus")
    assert job.everything()["d"] == []


@pytest.mark.parametrize(
    ("queue", "held", "idle", "leaves"),
    [
        pytest.param(1, 2000, 0, True, id="served for long"),
        pytest.param(1, 0, 500, True, id="idle"),
        pytest.param(1, 1500, 300, False, id="fresh and busy"),
        pytest.param(0, 9000, 9000, False, id="nobody waits"),
    ],
)
def test_take_yields_to_others_that_wait(
    job: ScriptedJob, queue: int, held: int, idle: int, *, leaves: bool
) -> None:
    job.begin_planned(slots=2)
    job.contribute("a", job.join("a"))

    answer = job.take("a", queue_length=queue, held_ms=held, idle_ms=idle)

    assert (answer == Leave(why="yield")) == leaves
    assert (job.client.zscore(job.store.key("p"), "a") is None) == leaves


def test_take_yields_when_served_for_long(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    job.contribute("a", job.join("a"))

    assert job.take("a", queue_length=1, held_ms=2000) == Leave(why="yield")


def test_take_does_not_yield_to_messages_of_its_own_job(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    job.contribute("a", job.join("a"))
    job.ticket()

    assert isinstance(job.take("a", queue_length=1, held_ms=9000), Work)


def test_take_never_yields_with_a_slot_in_hand(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    work = job.join("a")

    assert job.take("a", queue_length=5, held_ms=9000) == work


def test_take_gives_the_slot_of_an_expired_lease_to_another(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    lost = job.join("a")
    job.step_clock(6001)

    taken = job.join("b")

    assert (taken.slot, taken.attempt) == (lost.slot, 2)
    assert job.head["retries"] == "1"
    assert job.contribute("a", lost) == "LOST"
    assert job.contribute("b", taken) == "OK"


def test_take_lets_a_late_token_go_on_if_nobody_took_its_slot(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    work = job.join("a")
    job.step_clock(60_000)

    again = job.take("a")

    assert again == work
    assert job.lease(0)["dl"] == int(job.client.get(job.store.key("clock"))) + 6000  # type: ignore[arg-type]


def test_take_fails_the_job_when_a_slot_was_lost_too_often(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    for number in range(MAX_LOST):
        assert job.join(f"poisoned-{number}").attempt == number + 1
        job.step_clock(6001)

    answer = job.take("next", job.ticket())

    assert answer == Leave(why="end")
    assert job.state == "FAILED"
    assert "slot 0 was lost 4 times in one round" in job.head["reason"]
    assert job.rid == ""


def test_take_counts_losses_of_one_round_alone(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1, rounds=2)
    for _ in range(2):
        for number in range(MAX_LOST - 1):
            job.step_clock(6001)
            job.join(f"lost-{number}")
        job.step_clock(6001)
        assert job.advance(job.fill())[0] == "OK"

    assert job.state == "END"


@pytest.mark.parametrize("stage", ["init", "validate"])
def test_take_ends_participants_of_another_stage(job: ScriptedJob, stage: str) -> None:
    job.begin_planned()
    ticket = job.ticket()

    assert job.take("a", ticket, stage=stage) == Leave(why="end")
    assert job.everything()["p"] == []


def test_take_ends_participants_when_the_epoch_is_over(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    work = job.join("a")
    job.contribute("a", work, "one")
    job.advance(["one"])

    assert job.state == "END"
    assert job.take("a") == Leave(why="end")


def test_take_ends_participants_of_a_job_that_is_to_stop(job: ScriptedJob) -> None:
    job.begin_planned()
    job.join("a")
    job.store.stop(job.gen)

    assert job.take("a") == Leave(why="end")


def test_take_answers_gone_to_another_generation(job: ScriptedJob) -> None:
    job.begin_planned()
    ticket = job.ticket()
    before = job.everything()
    job.gen = "2"

    assert job.take("a", ticket) == Leave(why="gone")
    assert job.everything() == before


def test_take_answers_gone_when_the_head_is_lost(job: ScriptedJob) -> None:
    assert job.take("a", new_id()) == Leave(why="gone")
    assert job.client.exists(job.store.key("p"), job.store.key("h")) == 0


def test_take_serves_initialisation_and_validation_alike(job: ScriptedJob) -> None:
    job.begin()
    job.advance(job.fill(stage="init"))
    job.plan(slots=2, rounds=1, vslots=2)
    job.run_epoch()

    work = job.join("v", stage="validate")

    assert (job.state, work.slot, work.epoch, work.version) == ("VAL", 0, 1, 2)


def test_whoever_leaves_makes_room_at_once(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, max_workers=1)
    work = job.join("going")
    assert job.take("early", job.ticket()) == Leave(why="surplus")
    job.contribute("going", work)

    job.store.leave(job.gen, token="going", ticket="")

    assert job.everything().get("p", []) == []
    assert isinstance(job.take("next", job.ticket()), Work)
