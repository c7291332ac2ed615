"""Shares and waiting times, as they are read off the ledgers."""

from collections.abc import Sequence
from typing import Any

import pytest

from scripts.benchmarks.ledgers import Holding, Round, rounds_of
from scripts.benchmarks.resize import Change, changes_seen, scalings_seen
from scripts.loads.traces import (
    Share,
    Trace,
    crowded,
    shares,
    shares_by_weight,
    trace,
    workers_over_time,
)


def held(begin_s: float, end_s: float, worker: str = "w") -> Holding:
    return Holding(worker=worker, begin_s=begin_s, end_s=end_s)


def a_trace(
    *holdings: Holding, name: str = "j", weight: int = 1, submitted_s: float = 0.0
) -> Trace:
    merged_s = max(h.end_s for h in holdings)
    return Trace(
        job_id=name, weight=weight, submitted_s=submitted_s, merged_s=merged_s, holdings=holdings
    )


def a_round(epoch: int, index: int, opened_s: float, *holdings: Holding) -> Round:
    merged_s = max(h.end_s for h in holdings) + 0.25
    return Round(epoch=epoch, round=index, opened_s=opened_s, merged_s=merged_s, holdings=holdings)


def a_ledger(timings: Any, workers: Sequence[str] = ("a", "b")) -> dict[str, Any]:
    entries = [{"slot": slot, "worker": worker} for slot, worker in enumerate(workers)]
    # The order of the entries is not that of the slots.
    return {"epoch": 3, "rounds": {"0": entries[::-1]}, "timings": {"0": timings}}


def test_rounds_are_read_off_a_ledger_by_slot() -> None:
    opened_ms, merged_ms = 5_000.0, 900.0
    ledger = a_ledger([opened_ms, merged_ms, [[10.0, 10.0, 400.0], [20.0, 50.0, 800.0]]])

    (round_,) = rounds_of([ledger])

    assert (round_.epoch, round_.round, round_.opened_s) == (3, 0, 5.0)
    assert round_.wall_s == pytest.approx(0.9)
    assert [h.worker for h in round_.holdings] == ["a", "b"]
    # From being taken by whose work counts: not since somebody began with it at first.
    assert round_.holdings[1].begin_s == pytest.approx(5.05)
    assert round_.holdings[1].end_s == pytest.approx(5.8)


@pytest.mark.parametrize("timings", [None, "?", [0.0, -1.0, []], [5_000.0, 900.0, [[0, 0, 1]]]])
def test_rounds_without_possible_timings_are_left_out(timings: Any) -> None:
    assert rounds_of([a_ledger(timings)]) == []


def test_a_job_waits_for_its_first_worker_and_whenever_it_has_none() -> None:
    # In the middle one worker goes on while another leaves: that is no wait.
    course = a_trace(held(3, 5), held(4, 9), held(6, 7), held(13, 14), submitted_s=1)

    assert course.first_wait_s == 2
    assert course.longest_wait_s == 4


def test_the_wait_for_the_first_worker_may_be_the_longest() -> None:
    assert a_trace(held(8, 9), held(10, 11)).longest_wait_s == 8


def test_a_job_that_nobody_trained_has_no_trace() -> None:
    assert trace("j", 1, 0.0, []) is None


def test_a_trace_has_the_holdings_of_all_rounds() -> None:
    rounds = [a_round(1, 0, 2, held(2, 3), held(2, 4)), a_round(1, 1, 5, held(5, 6))]

    found = trace("j", 2, 1.0, rounds)

    assert found is not None
    assert (found.weight, found.merged_s, len(found.holdings)) == (2, 6.25, 3)
    assert found.first_wait_s == 1


def test_shares_count_within_the_window_alone() -> None:
    light = a_trace(held(0, 4), held(10, 20), name="light")
    heavy = a_trace(held(0, 12), name="heavy", weight=3)

    found = shares([light, heavy], (2.0, 12.0))

    # 2 s + 2 s, and 10 s.
    assert found["light"] == Share(got_s=4.0, due_s=3.5)
    assert found["heavy"] == Share(got_s=10.0, due_s=10.5)
    assert found["light"].off == pytest.approx(0.5 / 3.5)


def test_equal_time_for_unequal_weights_is_not_fair() -> None:
    jobs = [a_trace(held(0, 10), name=f"j{w}", weight=w) for w in (1, 3)]

    found = shares(jobs, (0.0, 10.0))

    assert [round(found[name].off, 3) for name in ("j1", "j3")] == [1.0, -0.333]


def test_shares_of_a_window_in_which_nobody_worked_are_refused() -> None:
    with pytest.raises(ValueError, match="nobody worked"):
        shares([a_trace(held(0, 1))], (2.0, 3.0))


def test_jobs_of_a_weight_are_taken_together() -> None:
    jobs = [
        a_trace(held(0, 1), name="a"), a_trace(held(0, 3), name="b"),
        a_trace(held(0, 8), name="c", weight=2),
    ]  # fmt: skip

    together = shares_by_weight(jobs, shares(jobs, (0.0, 8.0)))

    assert together == {1: Share(got_s=4.0, due_s=6.0), 2: Share(got_s=8.0, due_s=6.0)}


def test_a_crowd_lasts_from_the_last_submission_to_the_first_end() -> None:
    jobs = [a_trace(held(1, 9), submitted_s=0), a_trace(held(4, 7), submitted_s=2)]

    assert crowded(jobs) == (2, 7)


def test_workers_over_time_are_means_of_equal_times() -> None:
    jobs = [a_trace(held(0, 5), held(0, 10), name="a"), a_trace(held(5, 10), name="b")]

    middles, means = workers_over_time(jobs, bins=4)

    assert middles == [1.25, 3.75, 6.25, 8.75]
    assert means == {"a": [2.0, 2.0, 1.0, 1.0], "b": [0.0, 0.0, 1.0, 1.0]}


def test_resizing_by_workers_is_timed_by_the_ledger() -> None:
    rounds = [
        a_round(1, 0, 10, held(10, 11, "old"), held(10, 11, "new")),
        a_round(1, 1, 12, held(12, 13, "old"), held(13, 14, "old")),
    ]
    changes = [
        Change(what="join", at_s=7, worker="new", ready_at_s=9.5),
        Change(what="SIGKILL", at_s=12.5, worker="new", held=[(1, 1, 1)]),
        # Handed in before it could die: nothing had to be taken over.
        Change(what="SIGTERM", at_s=10.9, worker="new", held=[(1, 0, 1)]),
    ]

    assert changes_seen(changes, rounds) == {
        "worker started -> holds a slot": [3],
        "worker ready -> holds a slot": [0.5],
        "SIGKILL, last round -> slot held by another": [0.5],
        "SIGKILL, last round -> round merged": [1.75],
    }


def test_scaling_is_timed_in_two_parts() -> None:
    two = [held(0, 1), held(0, 1)]
    rounds = [
        a_round(1, 0, 0, *two),
        a_round(2, 0, 2, held(2, 3), held(2, 3)),
        a_round(3, 0, 4, *(held(4 + late, 5) for late in (0.5, 0.25, 0.5, 0.75))),
    ]

    found = scalings_seen([Change(what="up", at_s=2.25, slots=4)], rounds)

    assert found == {
        "scale up -> first slot": [2.0],
        "scale up: until the epoch has ended": [1.0],
        "scale up: from then on": [1.0],
        "scale up: from then on, all slots held": [1.5],
    }
