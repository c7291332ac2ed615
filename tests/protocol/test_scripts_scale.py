"""SCALE: what N and W may be, changed while a job runs; PLAN carries what is expected."""

from brokers.wire import new_id
from tests.protocol.jobs import ScriptedJob


def scaled(job: ScriptedJob) -> tuple[str, ...]:
    return tuple(job.head.get(name, "") for name in ("scale", "floor", "ceiling", "max_workers"))


def test_scale_changes_the_head_and_rings_the_bell(job: ScriptedJob) -> None:
    job.begin_planned(scale=0, floor=1, ceiling=16, max_workers=0)
    rings, before = job.num_rings(), job.head

    answer = job.store.scale("1", 1, 2, 8, 3)

    assert answer == "OK"
    assert scaled(job) == ("1", "2", "8", "3")
    assert job.num_rings() == rings + 1
    assert job.store.snapshot().head.max_workers == 3
    # The epoch under way is not disturbed.
    assert {k: v for k, v in job.head.items() if before.get(k) != v} == {
        "scale": "1", "floor": "2", "ceiling": "8", "max_workers": "3",
    }  # fmt: skip


def test_scale_repeated_is_ok_and_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned()
    job.store.scale("1", 1, 2, 8, 3)
    before, rings = job.everything(), job.num_rings()

    assert job.store.scale("1", 1, 2, 8, 3) == "OK"
    assert (job.everything(), job.num_rings()) == (before, rings)


def test_scale_that_comes_late_does_not_undo_a_later_one(job: ScriptedJob) -> None:
    job.begin_planned()

    answers = [job.store.scale("1", 10, 4, 4, 0), job.store.scale("1", 9, 2, 8, 3)]

    assert answers == ["OK", "OK"]
    assert scaled(job) == ("10", "4", "4", "0")


def test_scale_works_on_a_head_of_an_earlier_version(job: ScriptedJob) -> None:
    job.begin()

    assert job.store.scale("1", 1, 2, 8, 0) == "OK"
    assert scaled(job) == ("1", "2", "8", "0")


def test_scale_of_a_job_that_has_ended_is_final(job: ScriptedJob) -> None:
    job.begin(state="END")
    job.store.finish("1", job.rid, "", to="DONE")
    before = job.everything()

    assert job.store.scale("1", 1, 2, 8, 3) == "FINAL"
    assert job.everything() == before


def test_scale_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin_planned()
    before = job.everything()

    assert job.store.scale("2", 1, 2, 8, 3) == "GONE"
    assert job.everything() == before


def test_scale_holds_from_epoch_to_epoch(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    job.store.scale("1", 1, 2, 8, 3)
    job.run_epoch()
    job.store.finish("1", job.rid, new_id(), to="PLAN")

    assert job.plan(epoch=2) == "OK"
    assert scaled(job) == ("1", "2", "8", "3")


def test_plan_keeps_what_is_expected_of_the_epoch(job: ScriptedJob) -> None:
    job.begin(state="PLAN")

    job.store.plan(
        "1", job.rid, new_id(), epoch=1, slots=2, rounds=2, want=2, last_want=2,
        validation_slots=0, decision="test", expected_s=1.25,
    )  # fmt: skip

    assert job.head.get("expected_s") == "1.25"


def test_plan_without_an_expectation_forgets_that_of_the_epoch_before(job: ScriptedJob) -> None:
    job.begin(state="PLAN", expected_s="99")

    job.plan()

    assert job.head["expected_s"] == ""
