"""The hash of local weights: what slots of a job with ``--overlap`` go on from."""

from brokers.rounds.answers import Work
from brokers.wire import new_id
from tests.protocol.jobs import ScriptedJob


def test_advance_keeps_what_each_slot_contributed_for_the_next_round(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=3, overlap=1)
    first = job.fill()
    before = job.store.snapshot().local

    job.advance(first)
    after_one = job.store.snapshot().local
    second = job.fill()
    job.advance(second)

    assert before == {}
    assert after_one == {slot: f"tensors-{cid}" for slot, cid in enumerate(first)}
    assert job.store.snapshot().local == {slot: f"tensors-{cid}" for slot, cid in enumerate(second)}


def test_advance_keeps_no_local_weights_without_overlap(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=3)

    job.advance(job.fill())

    assert job.store.snapshot().local == {}


def test_advance_repeated_keeps_the_same_local_weights(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2, overlap=1)
    old, new, weights, cids = job.rid, new_id(), job.stage(), job.fill()
    job.advance(cids, rid=old, new_rid=new, weights=weights)
    before = job.everything()

    job.advance(cids, rid=old, new_rid=new, weights=weights)

    assert job.everything() == before


def test_advance_of_the_last_round_forgets_the_local_weights(job: ScriptedJob) -> None:
    # Nothing overlaps across epochs: checkpoints need nothing but merged weights.
    job.begin_planned(slots=2, rounds=2, vslots=2, overlap=1)
    job.advance(job.fill())
    assert len(job.store.snapshot().local) == 2

    job.advance(job.fill())

    assert job.state == "VAL"
    assert job.store.snapshot().local == {}


def test_advance_of_initial_weights_leaves_no_local_ones(job: ScriptedJob) -> None:
    job.begin(overlap=1)

    job.advance(job.fill(stage="init"))

    assert job.store.snapshot().local == {}


def test_take_hands_out_the_slots_own_local_weights(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=2, overlap=1)
    beginning = job.join("a")
    job.contribute("a", beginning, "first", tensors="tensors-first")
    cids = ["first", *job.fill()[1:]]
    job.advance(cids)

    job.client.delete(job.store.key("p"))
    works = {work.slot: work for work in (job.join("b"), job.join("c"))}

    assert beginning.local == ""
    assert works[0].local == "tensors-first"
    assert works[1].local == f"tensors-{cids[1]}"


def test_take_gives_a_slot_taken_over_the_same_local_weights(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1, rounds=2, overlap=1)
    job.advance(job.fill())
    job.client.delete(job.store.key("p"))
    work = job.join("a")
    job.step_clock(7000)

    again = job.join("b")

    assert (again.attempt, again.local) == (2, work.local)
    assert work.local


def test_plan_and_init_begin_without_local_weights(job: ScriptedJob) -> None:
    job.begin(state="PLAN", w=job.stage().to_json(), ver=1, overlap=1)
    job.client.hset(job.store.key("l"), "0", "of an earlier epoch")

    job.plan(slots=1, rounds=2)
    after_plan = job.store.snapshot().local
    work = job.join("a")
    job.client.hset(job.store.key("l"), "0", "of an earlier generation")
    job.store.init(2, birth=new_id(), fields=job.fields(), seen="1")

    assert after_plan == {}
    assert isinstance(work, Work)
    assert work.local == ""
    assert job.store.snapshot().local == {}


def test_the_end_of_a_job_forgets_the_local_weights(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=3, overlap=1)
    job.advance(job.fill())

    job.store.finish(job.gen, job.rid, "", to="FAILED", reason="test")

    assert job.store.snapshot().local == {}
