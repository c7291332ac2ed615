"""The server's clock may step: nothing gets stuck, at worst leases end once."""

import pytest

from brokers.rounds.answers import Work
from brokers.state.scripts import script_sources
from brokers.wire import new_id
from tests.protocol.jobs import LEASE_MS, ScriptedJob
from tests.protocol.script_variants import clocked

HOUR_MS = 3_600_000


def test_the_set_clock_changes_nothing_but_the_time() -> None:
    real, changed = script_sources(), clocked(script_sources())

    for name, source in real.items():
        before = source.splitlines()
        after = changed[name].splitlines()
        start = before.index("local function instant()")
        assert before[:start] == after[:start]
        assert before[start + 4 :] == after[start + 3 :]
        assert "TIME" not in "\n".join(after)


def test_scripts_read_the_servers_clock_in_ms(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    seconds, micros = job.client.time()  # type: ignore[misc]
    job.join("a")

    begun = job.lease(0)["at"]
    assert begun - 5000 < seconds * 1000 + micros // 1000 <= begun
    assert job.lease(0)["dl"] == begun + LEASE_MS


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS, 365 * 24 * HOUR_MS])
def test_a_step_of_the_clock_ends_the_leases_once(clocked_job: ScriptedJob, step: int) -> None:
    job = clocked_job.begin_planned(slots=2, rounds=2)
    lost, kept = job.join("a"), job.join("b")
    job.step_clock(step)

    taken = job.join("c")

    assert taken.slot == lost.slot
    assert job.contribute("a", lost) == "LOST"
    assert job.contribute("b", kept) == "OK"
    assert job.contribute("c", taken) == "OK"


def test_a_lease_does_not_outlive_a_clock_that_steps_back(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.join("dead")
    job.step_clock(-HOUR_MS)

    assert job.join("b").slot == 0


def test_participants_do_not_outlive_a_clock_that_steps_back(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.join("dead")
    job.step_clock(-HOUR_MS)

    assert job.store.send("1", new_id(), burst=1) == "OK"


def test_an_owner_does_not_outlive_a_clock_that_steps_back(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin()
    job.store.acquire("1", "dead", ttl_ms=3000)
    job.step_clock(-HOUR_MS)

    assert job.store.acquire("1", "b", ttl_ms=3000)


@pytest.mark.parametrize("step", [HOUR_MS, -HOUR_MS])
def test_a_participant_that_works_on_keeps_its_slot(clocked_job: ScriptedJob, step: int) -> None:
    job = clocked_job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.step_clock(step)

    assert job.store.beat("1", token="a", slot=0, rid=work.rid) == "OK"
    assert job.lease(0)["dl"] == int(job.client.get(job.store.key("clock"))) + LEASE_MS  # type: ignore[arg-type]
    again = job.take("a")
    assert isinstance(again, Work)
    assert again.attempt == 1


def test_a_small_step_back_costs_at_most_the_lease(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    work = job.join("a")
    job.step_clock(-1)

    assert job.contribute("a", work) == "OK"
