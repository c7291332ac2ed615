"""INIT, PLAN, FINISH, STOP, SEND, ACQ: a job's life around its rounds."""

import pytest

from brokers.rounds.answers import Leave
from brokers.rounds.index import JOBS_KEY, live_jobs
from brokers.wire import new_id
from tests.protocol.jobs import LEASE_MS, ScriptedJob


def test_init_builds_a_head(job: ScriptedJob) -> None:
    built = job.store.init(1, birth="b", fields=job.fields(**{"o:0": "ref-0", "o:11": "ref-11"}))

    assert built
    assert job.head.items() >= {"gen": "1", "state": "INIT", "want": "1", "birth": "b"}.items()
    assert job.store.snapshot().optimizer == {0: "ref-0", 11: "ref-11"}
    assert job.store.job_id in live_jobs(job.client)


def test_init_repeated_is_ok_and_changes_nothing(job: ScriptedJob) -> None:
    fields = job.fields()
    job.store.init(1, birth="b", fields=fields)
    job.join("a", stage="init")
    before = job.everything()

    assert job.store.init(1, birth="b", fields=fields)
    assert job.everything() == before


def test_init_does_not_touch_a_job_of_the_same_or_a_later_generation(job: ScriptedJob) -> None:
    job.gen = "12"
    job.begin_planned()
    before = job.everything()

    answers = [
        job.store.init(gen, birth=new_id(), fields=job.fields(rid="other"), seen="12")
        for gen in (12, 11, 9, 2)
    ]

    assert answers == [False] * 4
    assert job.everything() == before


@pytest.mark.parametrize("seen", ["", "1", "3"])
def test_init_leaves_a_generation_that_it_was_not_built_for(job: ScriptedJob, seen: str) -> None:
    job.gen = "2"
    job.begin_planned()
    before = job.everything()

    assert not job.store.init(4, birth=new_id(), fields=job.fields(), seen=seen)
    assert job.everything() == before


def test_init_does_not_touch_a_generation_that_the_caller_did_not_see(job: ScriptedJob) -> None:
    job.gen = "2"
    job.begin_planned()

    assert not job.store.init(3, birth=new_id(), fields=job.fields(), seen="1")
    assert job.head["gen"] == "2"


def test_init_of_a_job_that_was_seen_and_is_gone_does_nothing(job: ScriptedJob) -> None:
    assert not job.store.init(3, birth=new_id(), fields=job.fields(), seen="2")
    assert job.head == {}


def test_init_of_a_later_generation_clears_what_was_there(job: ScriptedJob) -> None:
    job.gen = "9"
    job.begin_planned(slots=2, rounds=2)
    work = job.join("a")
    job.contribute("a", work)
    job.ticket()
    job.client.hset(job.store.key("o"), "0", "old")
    job.client.hset(job.store.key("g"), "0", "old")
    job.client.hset(job.store.key("l"), "0", "old")

    assert job.store.init(10, birth=new_id(), fields=job.fields(), seen="9")

    now = job.everything()
    assert now.pop("h")["gen"] == "10"
    assert now == {"s": {}, "c": {}, "p": [], "d": [], "o": {}, "l": {}, "g": {}}
    assert job.contribute("a", work) == "GONE"
    assert job.take("a") == Leave(why="gone")


def test_init_of_a_later_generation_keeps_the_wish_to_stop(job: ScriptedJob) -> None:
    job.begin_planned()
    job.store.stop("1")

    job.store.init(2, birth=new_id(), fields=job.fields(), seen="1")

    assert job.head.get("stop") == "1"


def test_plan_begins_an_epoch(job: ScriptedJob) -> None:
    job.begin(state="PLAN", epoch=4)

    answer = job.plan(epoch=5, slots=3, rounds=2, last_want=1, vslots=2)

    assert answer == "OK"
    expected = {"state": "RUN", "epoch": "5", "round": "0", "rounds": "2", "slots": "3"}
    expected |= {"want": "3", "last_want": "1", "vslots": "2", "retries": "0", "decision": "test"}
    assert job.head.items() >= expected.items()


def test_plan_repeated_is_ok_and_changes_nothing(job: ScriptedJob) -> None:
    job.begin(state="PLAN")
    old, new = job.rid, new_id()
    job.plan(rid=old, new_rid=new)
    job.join("a")
    before = job.everything()

    assert job.plan(rid=old, new_rid=new) == "OK"
    assert job.everything() == before


def test_plan_of_another_scheduler_is_stale(job: ScriptedJob) -> None:
    job.begin(state="PLAN")
    old = job.rid
    job.plan(rid=old, slots=2)
    job.join("a")
    before = job.everything()

    assert job.plan(rid=old, slots=3) == "STALE"
    assert job.plan(rid=job.rid, slots=3, epoch=2) == "STALE"
    assert job.everything() == before


@pytest.mark.parametrize("epoch", [3, 5, 6])
def test_plan_of_another_epoch_is_stale(job: ScriptedJob, epoch: int) -> None:
    job.begin(state="PLAN", epoch=3)

    assert job.plan(epoch=epoch) == "STALE"


def test_plan_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin(state="PLAN")
    job.gen = "2"

    assert job.plan() == "GONE"
    assert job.state == "PLAN"


def test_plan_forgets_the_optimizer_states_of_slots_that_went(job: ScriptedJob) -> None:
    job.begin(state="PLAN")
    job.client.hset(job.store.key("o"), mapping={"0": "a", "1": "b", "10": "c"})

    job.plan(slots=2)

    assert job.store.snapshot().optimizer == {0: "a", 1: "b"}


def test_plan_forgets_the_ledger_of_the_epoch_before(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    job.run_epoch()
    job.store.finish("1", job.rid, new_id(), to="PLAN")
    assert job.store.ledger()[0]

    job.plan(epoch=2)

    assert job.store.ledger() == ({}, [], {})


def test_finish_of_an_epoch_leads_to_the_next_plan(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    job.run_epoch()
    new = new_id()

    answer = job.store.finish("1", job.rid, new, to="PLAN")

    assert answer == "OK"
    assert (job.state, job.rid, job.head["epoch"]) == ("PLAN", new, "1")
    assert job.plan(epoch=2) == "OK"


def test_finish_repeated_is_ok_and_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    job.run_epoch()
    old, new = job.rid, new_id()
    job.store.finish("1", old, new, to="PLAN")
    before = job.everything()

    assert job.store.finish("1", old, new, to="PLAN") == "OK"
    assert job.everything() == before


def test_finish_of_a_superseded_parameter_server_is_stale(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    job.run_epoch()
    old = job.rid
    job.store.finish("1", old, new_id(), to="PLAN")
    job.plan(epoch=2, slots=1, rounds=1)
    job.run_epoch()
    before = job.everything()

    assert job.state == "END"
    assert job.store.finish("1", old, new_id(), to="PLAN") == "STALE"
    assert job.store.finish("1", old, "", to="DONE") == "STALE"
    assert job.everything() == before


@pytest.mark.parametrize("to", ["PLAN", "DONE"])
def test_finish_of_an_epoch_under_way_is_stale(job: ScriptedJob, to: str) -> None:
    job.begin_planned()

    assert job.store.finish("1", job.rid, new_id(), to=to) == "STALE"
    assert job.state == "RUN"


def test_finish_waits_for_the_whole_validation(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=1, vslots=2)
    job.run_epoch()
    job.contribute("v", job.join("v", stage="validate"))

    early = job.store.finish("1", job.rid, new_id(), to="DONE")
    job.contribute("u", job.join("u", stage="validate"))

    assert (early, job.state) == ("MORE", "VAL")
    assert job.store.finish("1", job.rid, "", to="DONE", reason="goal") == "OK"
    assert (job.state, job.head["reason"], job.rid) == ("DONE", "goal", "")


def test_finish_stops_only_who_was_asked_to(job: ScriptedJob) -> None:
    job.begin_planned()
    job.join("a")

    unasked = job.store.finish("1", job.rid, "", to="STOPPED")
    assert job.store.stop("1") == "OK"
    asked = job.store.finish("1", job.rid, "", to="STOPPED", reason="by the user")

    assert (unasked, asked) == ("STALE", "OK")
    assert (job.state, job.head["reason"]) == ("STOPPED", "by the user")
    assert job.everything()["s"] == {}


@pytest.mark.parametrize("state", ["INIT", "PLAN", "RUN"])
def test_finish_may_fail_a_job_in_any_state(job: ScriptedJob, state: str) -> None:
    job.begin(state=state)

    assert job.store.finish("1", job.rid, "", to="FAILED", reason="why") == "OK"
    assert (job.state, job.head["reason"]) == ("FAILED", "why")


@pytest.mark.parametrize("final", ["DONE", "FAILED", "STOPPED"])
def test_final_states_never_change(job: ScriptedJob, final: str) -> None:
    job.begin(state="END")
    if final == "STOPPED":
        job.store.stop("1")
    work_rid = job.rid
    assert job.store.finish("1", work_rid, "", to=final, reason="first") == "OK"
    before = job.everything()

    answers = {
        to: job.store.finish("1", rid, new_id(), to=to, reason="second")
        for to in ("PLAN", "DONE", "FAILED", "STOPPED")
        for rid in (work_rid, "")
    }

    assert answers == {
        to: "OK" if to == final else "STALE" for to in ("PLAN", "DONE", "FAILED", "STOPPED")
    }
    assert job.store.stop("1") == "FINAL"
    assert job.plan() == "STALE"
    assert job.store.send("1", new_id(), burst=1) == "IDLE"
    assert job.take("a", stage="train") == Leave(why="end")
    assert job.everything() == before


def test_finish_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin(state="END")

    assert job.store.finish("2", job.rid, "", to="DONE") == "GONE"
    assert job.state == "END"


def test_stop_is_kept_and_rings_the_bell(job: ScriptedJob) -> None:
    job.begin_planned()
    rings = job.num_rings()

    answers = [job.store.stop("1"), job.store.stop("1"), job.store.stop("2")]

    assert answers == ["OK", "OK", "GONE"]
    assert job.head["stop"] == "1"
    assert job.state == "RUN"
    assert job.num_rings() > rings


def test_stop_does_nothing_after_the_end(job: ScriptedJob) -> None:
    job.begin(state="END")
    job.store.finish("1", job.rid, "", to="DONE")
    before = job.everything()

    assert job.store.stop("1") == "FINAL"
    assert job.everything() == before


def test_send_is_full_when_every_open_slot_is_spoken_for(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    job.join("a")
    job.ticket()
    job.ticket()

    assert job.store.send("1", new_id(), burst=99) == "FULL"


def test_send_is_full_when_the_burst_is_out(job: ScriptedJob) -> None:
    job.begin_planned(slots=3)
    job.ticket()

    assert job.store.send("1", new_id(), burst=1) == "FULL"
    assert job.store.send("1", new_id(), burst=2) == "OK"


def test_send_counts_slots_that_are_in_as_served(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    job.contribute("a", job.join("a"))

    assert job.store.send("1", new_id(), burst=99) == "FULL"


def test_send_replaces_participants_that_died(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.join("a")
    early = job.store.send("1", new_id(), burst=1)
    job.step_clock(LEASE_MS + 1)

    assert early == "FULL"
    assert job.store.send("1", new_id(), burst=1) == "OK"


def test_send_repeated_is_ok_and_records_one_ticket(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)

    answers = [job.store.send("1", "ticket", burst=1) for _ in range(3)]

    assert answers == ["OK"] * 3
    assert job.everything()["d"] == [b"ticket"]


@pytest.mark.parametrize("state", ["PLAN", "END"])
def test_send_is_idle_between_stages(job: ScriptedJob, state: str) -> None:
    job.begin(state=state)

    assert job.store.send("1", new_id(), burst=1) == "IDLE"


def test_send_is_idle_when_the_job_is_to_stop(job: ScriptedJob) -> None:
    job.begin_planned()
    job.store.stop("1")

    assert job.store.send("1", new_id(), burst=1) == "IDLE"


def test_send_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin_planned()

    assert job.store.send("2", new_id(), burst=1) == "GONE"
    assert job.everything()["d"] == []


def test_one_parameter_server_owns_a_job_until_its_lease_ends(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin()

    answers = [job.store.acquire("1", name, ttl_ms=3000) for name in ("a", "b", "a")]
    job.step_clock(3001)
    later = [job.store.acquire("1", name, ttl_ms=3000) for name in ("b", "a")]

    assert answers == [True, False, True]
    assert later == [True, False]
    assert not job.store.acquire("2", "b", ttl_ms=3000)


def test_retired_jobs_keep_a_head_that_expires(job: ScriptedJob) -> None:
    job.begin(state="END")
    job.store.finish("1", job.rid, "", to="DONE")

    job.store.retire("1")

    assert job.client.sismember(JOBS_KEY, job.store.job_id) == 0
    assert job.state == "DONE"
    assert 0 < int(job.client.ttl(job.store.key("h"))) <= 3600  # type: ignore[arg-type]


def test_forgotten_jobs_leave_no_key(job: ScriptedJob) -> None:
    job.begin(state="END")
    job.store.finish("1", job.rid, "", to="DONE")
    job.store.retire("1")

    job.store.forget()

    assert job.client.keys(job.store.key("*")) == []


def test_retire_does_not_touch_a_later_generation(job: ScriptedJob) -> None:
    job.begin(state="END")
    job.store.finish("1", job.rid, "", to="FAILED")
    assert job.store.init(2, birth=new_id(), fields=job.fields(life=1), seen="1")

    job.store.retire("1")

    assert job.client.ttl(job.store.key("h")) == -1
    assert job.client.sismember(JOBS_KEY, job.store.job_id) == 1


def test_retire_does_not_touch_a_living_job(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)

    job.store.retire("1")

    assert job.client.ttl(job.store.key("h")) == -1


def test_init_brings_back_no_job_that_is_done(job: ScriptedJob) -> None:
    # A parameter server that found the generation damaged, and slept while the job ended.
    job.begin(state="END")
    job.store.finish("1", job.rid, "", to="DONE")

    assert not job.store.init(2, birth=new_id(), fields=job.fields(), seen="1")
    assert job.state == "DONE"


def test_init_of_a_later_life_begins_a_job_that_was_stopped_anew(job: ScriptedJob) -> None:
    job.begin(state="END")
    job.store.stop("1")
    job.store.finish("1", job.rid, "", to="STOPPED")
    job.store.retire("1")

    assert job.store.init(2, birth=new_id(), fields=job.fields(life=1), seen="1")

    assert (job.state, "stop" in job.head) == ("INIT", False)
    assert job.client.ttl(job.store.key("h")) == -1
    assert job.client.ttl(job.store.bell_key) == -1
