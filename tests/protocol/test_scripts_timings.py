"""The scripts note when a round was opened and merged, and its slots taken and in; once."""

import json
from typing import Any

import pytest

from brokers.rounds.answers import Work
from brokers.wire import new_id
from tests.protocol.jobs import LEASE_MS, START_MS, ScriptedJob, make_contribution


def timing(job: ScriptedJob, round_index: int = 0) -> Any:
    return json.loads(job.store.ledger().timings[round_index])


def test_advance_notes_when_slots_were_taken_and_in(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=2)
    job.step_clock(10)
    first = job.join("a")
    job.step_clock(5)
    second = job.join("b")
    job.step_clock(20)
    job.contribute("b", second, "two")
    job.step_clock(30)
    job.contribute("a", first, "one")
    job.step_clock(7)

    assert job.advance(["one", "two"])[0] == "OK"

    assert timing(job) == [START_MS, 72, [[10, 10, 65], [15, 15, 35]]]


def test_the_next_round_opens_when_the_last_is_merged(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1, rounds=2)
    for _ in range(2):
        job.step_clock(40)
        job.advance(job.fill())

    assert [timing(job, index)[:2] for index in (0, 1)] == [[START_MS, 40], [START_MS + 40, 40]]


def test_a_slot_taken_over_keeps_when_it_was_first_begun(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.step_clock(3)
    job.join("dead")
    job.step_clock(LEASE_MS + 1)
    heir = job.join("heir")
    job.step_clock(5)
    job.contribute("heir", heir, "c")

    job.advance(["c"])

    assert timing(job)[2] == [[3, LEASE_MS + 4, LEASE_MS + 9]]


def test_a_refused_contribution_is_timed_by_the_one_that_counts(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    work = job.join("a")
    job.step_clock(2)
    job.contribute("a", work, "bad")
    job.store.kick("1", job.rid, slot=0, who="bad", kind="bad", why="NaN")
    job.step_clock(4)
    again = job.take("a")
    assert isinstance(again, Work)
    job.step_clock(8)
    job.contribute("a", again, "good")

    job.advance(["good"])

    assert timing(job)[2] == [[0, 6, 14]]


def test_repeated_calls_change_no_timing(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    old, new, weights = job.rid, new_id(), job.stage()
    work = job.join("a")
    taken = job.lease(0)
    job.step_clock(5)
    assert job.take("a") == work
    made = make_contribution(token="a", slot=0, cid="c")
    job.store.contribute("1", old, made)
    handed_in = job.lease(0)
    job.step_clock(5)
    job.store.contribute("1", old, made)
    repeated = job.lease(0)
    job.advance(["c"], rid=old, new_rid=new, weights=weights)
    before = job.everything()
    job.step_clock(5)

    again = job.advance(["c"], rid=old, new_rid=new, weights=weights)

    assert (taken["a"], taken["b"], handed_in["i"]) == (0, 0, 5)
    assert repeated == handed_in
    assert again[0] == "OK"
    assert job.everything() == before
    assert timing(job) == [START_MS, 10, [[0, 0, 5]]]


def test_beats_keep_the_timings(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.step_clock(7)
    work = job.join("a")

    job.store.beat("1", token="a", slot=0, rid=work.rid)

    assert (job.lease(0)["a"], job.lease(0)["b"]) == (7, 7)


def test_timings_are_finer_than_a_millisecond(job: ScriptedJob) -> None:
    def micros() -> int:
        seconds, rest = job.client.time()  # type: ignore[misc]
        return int(seconds) * 1_000_000 + int(rest)

    job.begin(state="PLAN", w=job.stage().to_json(), ver=1)
    before = micros()
    job.plan(slots=1)
    after = micros()
    job.advance(job.fill())

    opened, merged, ((begun, taken, came),) = timing(job)
    assert before - 1 <= opened * 1000 <= after + 1
    assert 0 < begun == taken < came < merged
    assert float(job.head["opened"]) == pytest.approx(opened + merged, abs=0.01)


def test_planning_is_timed_from_the_end_of_the_last_stage(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin(state="PLAN", w=clocked_job.stage().to_json(), ver=1)
    job.step_clock(120)

    job.plan(slots=1)

    assert job.head["planning_ms"] == "120"


def test_initial_weights_leave_no_timing(job: ScriptedJob) -> None:
    job.begin()

    job.advance(job.fill(stage="init"))

    assert job.store.ledger() == ({}, [], {})


def test_slots_of_scripts_that_noted_no_time_are_not_known(job: ScriptedJob) -> None:
    # A worker of the version before may take part while a pool is being replaced.
    job.begin_planned(slots=1)
    work = job.join("a")
    lease = {name: value for name, value in job.lease(0).items() if name not in "abi"}
    job.client.hset(job.store.key("s"), "0", json.dumps(lease))
    job.contribute("a", work, "c")

    job.advance(["c"])

    assert timing(job)[2][0][:2] == [-1, -1]
