"""The time of an epoch, fitted to epochs whose costs are known, and to recorded ones."""

from dataclasses import replace
from typing import Any

import pytest

from kubeml.jobs.results import EpochRow
from kubeml.jobs.round_times import PHASES, epoch_phases
from kubeml.scheduling.policies.epoch_model import EpochModel, fit_line
from tests.unit.scheduling.epochs import TRACES, Trace, Truth, make_epoch


def fitted(rows: list[EpochRow], truth: Truth) -> EpochModel:
    model = EpochModel.fit(rows, num_rows=truth.num_rows, batch_size=truth.batch_size, k=truth.k)
    assert model is not None
    return model


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("k", [8, -1])
def test_costs_of_epochs_with_two_numbers_of_slots_are_told_apart(workers: int, k: int) -> None:
    truth = Truth(crowding=0.1, k=k, jitter=0.0)
    rows = [make_epoch(e, slots=n, workers=8, truth=truth) for e, n in enumerate((1, 2, 2), 1)]

    model = fitted(rows, truth)

    assert model.merge == pytest.approx((truth.merge_s, truth.merge_slot_s), rel=0.02)
    for slots in (1, 2, 4, 8):
        expected = make_epoch(9, slots=slots, workers=workers, truth=truth).duration_s
        assert model.epoch_s(slots, workers) == pytest.approx(expected, rel=0.03)


def test_one_epoch_is_scaled_by_what_it_was_spent_on() -> None:
    truth = Truth()
    row = make_epoch(5, slots=2, workers=4, truth=truth)

    model = fitted([row], truth)

    assert model.epoch_s(2, 4) == pytest.approx(row.duration_s, rel=0.01)
    assert model.epoch_s(4, 4) == pytest.approx(
        make_epoch(6, slots=4, workers=4, truth=truth).duration_s, rel=0.05
    )
    # Half of a merge is taken to grow with N.
    assert model.merge[0] == pytest.approx(2 * model.merge[1])


def test_fewer_workers_than_slots_take_them_in_turn() -> None:
    truth = Truth()
    model = fitted([make_epoch(5, slots=4, workers=2, truth=truth)], truth)

    assert model.serving_s(4, 2) == pytest.approx(2 * model.serving_s(4, 4))
    assert model.serving_s(4, 3) == model.serving_s(4, 2)
    assert model.merging_s(4) == pytest.approx(
        make_epoch(6, slots=4, workers=4, truth=truth).phases["merge"], rel=0.05
    )


def test_loading_in_the_first_epoch_is_not_expected_again() -> None:
    truth = Truth()
    first = make_epoch(1, slots=2, workers=2, truth=truth, loading_s=20.0)
    later = make_epoch(2, slots=2, workers=2, truth=truth)

    assert fitted([first], truth).epoch_s(2, 2) < later.duration_s
    assert fitted([first, later], truth).epoch_s(2, 2) == pytest.approx(later.duration_s, rel=0.01)


def test_an_epoch_in_which_the_machine_stood_still_counts_little() -> None:
    truth = Truth()
    rows = [make_epoch(e, slots=2, workers=2, truth=truth) for e in range(2, 8)]
    usual = rows[0].duration_s
    phases = dict(rows[-1].phases)
    phases["compute"] += 10 * usual

    paused = [*rows[:-1], replace(rows[-1], duration_s=11 * usual, phases=phases)]

    assert fitted(paused, truth).epoch_s(2, 2) == pytest.approx(usual, rel=0.2)


def test_what_was_trained_ahead_is_work_that_the_merge_hid() -> None:
    truth = Truth(merge_s=0.2, merge_slot_s=0.0)
    row = make_epoch(5, slots=2, workers=2, truth=truth)
    hidden = 0.5 * row.phases["merge"]
    phases = {**row.phases, "ahead": hidden, "compute": row.phases["compute"] - hidden}
    overlapped = replace(row, phases=phases, duration_s=row.duration_s - hidden)

    model = fitted([overlapped], truth)

    assert model.epoch_s(2, 2) == pytest.approx(overlapped.duration_s, rel=0.01)
    assert model.work[0] == pytest.approx(truth.work_s, rel=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": {}},
        {"mean_workers": None},
        {"phases": {"compute": "long", "merge": None, "wait": float("nan"), "push": -1.0}},
        {"rounds": 0},
        {"samples": 0},
    ],
    ids=str,
)
def test_epochs_without_possible_timings_tell_nothing(changes: dict[str, Any]) -> None:
    row = replace(make_epoch(2, slots=2, workers=2), **changes)

    assert EpochModel.fit([row], num_rows=1000, batch_size=10, k=1) is None
    assert EpochModel.fit([], num_rows=1000, batch_size=10, k=1) is None


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(1, 3, 1), (2, 5, 1), (3, 7, 1)], (1, 2)),
        ([(1, 5, 1), (2, 3, 1)], (4, 0)),
        ([(1, 1, 1), (3, 9, 1)], (0, 2.8)),
        ([(4, 8, 1), (4, 12, 3)], (5.5, 5.5 / 4)),
        ([(1, 3, 1), (2, 5, 1), (2, 500, 1e-9)], (1, 2)),
    ],
    ids=["exact", "falling", "below-origin", "one-x", "weighted"],
)
def test_lines_are_fitted_without_negative_parts(
    points: list[tuple[float, float, float]], line: tuple[float, float]
) -> None:
    assert fit_line(points, growing=0.5) == pytest.approx(line, abs=1e-3)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_recorded_epochs_come_out_as_expected_of_those_before(trace: Trace) -> None:
    off = []
    for at in range(2, len(trace.rows)):
        row = trace.rows[at]
        model = EpochModel.fit(
            trace.rows[:at], num_rows=trace.num_rows, batch_size=trace.batch_size, k=trace.k
        )
        assert model is not None
        off.append(abs(model.epoch_s(row.parallelism, trace.workers) / row.duration_s - 1))

    assert sorted(off)[len(off) // 2] < 0.25


def test_phases_of_a_row_add_up_to_the_epoch_and_long_epochs_are_sampled() -> None:
    timings = {"fetch": 0.1, "data": 0.1, "compute": 0.3, "push": 0.1, "ahead": 0.2}
    entries = [
        {"slot": slot, "worker": f"w{slot}", "attempt": 1, "timings": timings} for slot in (0, 1)
    ]
    clock = [1_800_000_000_000.0, 2000, [[100, 100, 1100], [200, 200, 1500]]]
    many = 1000

    phases, workers = epoch_phases(
        dict.fromkeys(range(many), entries), dict.fromkeys(range(many), clock)
    )

    assert set(phases) == {*PHASES, "ahead"}
    assert sum(phases[name] for name in PHASES) == pytest.approx(2.0 * many)
    assert phases["ahead"] == pytest.approx(0.2 * many)
    assert workers == 2
    assert epoch_phases(dict.fromkeys(range(3), entries), {}) == ({}, None)
    assert epoch_phases({}, {}) == ({}, None)
