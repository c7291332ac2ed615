"""Where the time went: the phases add up, and the bottleneck is named with what would help."""

from dataclasses import replace
from typing import Any

import pytest

from kubeml.analysis.bottleneck import holdups
from kubeml.analysis.explain import BETWEEN, JobTimes, explain_job
from kubeml.cli.views.explain import _LOOKS, bar_cells
from kubeml.jobs.results import EpochRow
from kubeml.jobs.round_times import PHASES, explain_round
from tests.unit.analysis.test_audit import a_row, a_spec

OPENED_MS = 1_800_000_000_000.25


def make_entry(slot: int = 0, **changes: Any) -> dict[str, Any]:
    """What the ledger says of a slot; its worker measured 0.7 s."""
    timings = {"fetch": 0.1, "data": 0.2, "compute": 0.3, "push": 0.1}
    return {"slot": slot, "worker": f"w{slot}", "attempt": 1, "timings": timings} | changes


def make_ledger(epoch: int = 1, *, opened_ms: float = OPENED_MS, **changes: Any) -> dict[str, Any]:
    """One round of two slots, 2 s long: slot 1 waits 0.6 s for slot 0, and the merge is 0.9 s."""
    return {
        "epoch": epoch,
        "gen": 1,
        "rounds": {"0": [make_entry(0), make_entry(1)]},
        "failed": [],
        "timings": {"0": [opened_ms, 2000, [[100, 100, 1100], [200, 200, 500]]]},
        "planning_ms": 500,
    } | changes


def explained(
    *ledgers: dict[str, Any], only: int | None = None, rows: list[EpochRow] | None = None
) -> JobTimes:
    rows = rows or [a_row(ledger["epoch"]) for ledger in ledgers]
    return explain_job(a_spec(), list(zip(rows, ledgers, strict=True)), only=only)


def test_phases_of_every_slot_add_up_to_the_wall_time_of_the_round() -> None:
    entries = [make_entry(1, attempt=2), make_entry(0)]

    times = explain_round(3, entries, [OPENED_MS, 2000, [[100, 100, 1100], [200, 700, 1500]]])

    assert times is not None
    assert (times.round, times.wall_s) == (3, 2.0)
    assert [slot.slot for slot in times.slots] == [0, 1]
    assert times.slots[0].phases == pytest.approx(
        {"queue": 0.1, "failed": 0.0, "fetch": 0.1, "data": 0.2, "compute": 0.3, "push": 0.1,
         "other": 0.3, "wait": 0.4, "merge": 0.5}
    )  # fmt: skip
    assert times.slots[1].phases["failed"] == pytest.approx(0.5)
    for phases in [times.phases, *(slot.phases for slot in times.slots)]:
        assert list(phases) == list(PHASES)
        assert sum(phases.values()) == pytest.approx(2.0)


def test_a_worker_that_says_more_than_it_had_is_scaled_down() -> None:
    liar = make_entry(timings={"compute": 30.0, "push": 10.0, "data": -1, "fetch": None})

    times = explain_round(0, [liar], [OPENED_MS, 1000, [[0, 0, 400]]])

    assert times is not None
    assert times.phases["compute"] == pytest.approx(0.3)
    assert times.phases["push"] == pytest.approx(0.1)
    assert times.phases["other"] == 0.0
    assert sum(times.phases.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "clock",
    [
        None,
        "soon",
        [OPENED_MS, 1000],
        [OPENED_MS, 1000, []],
        [OPENED_MS, 0, [[0, 0, 0]]],
        [0, OPENED_MS, [[OPENED_MS - 9, OPENED_MS - 9, OPENED_MS - 5]]],
        [OPENED_MS, 1000, [[-1, -1, 500]]],
        [OPENED_MS, 1000, [[300, 200, 500]]],
        [OPENED_MS, -3_600_000, [[0, 0, 500]]],
        [OPENED_MS, 1000, [[0, 0, 500], [0, 0, 500]]],
        [OPENED_MS, 1000, [["0", 0, 500]]],
        [OPENED_MS, 1000, [[0, 0, float("nan")]]],
    ],
)
def test_a_round_without_possible_timings_is_left_out(clock: Any) -> None:
    assert explain_round(0, [make_entry()], clock) is None


def test_shares_of_an_epoch_add_up_to_one_with_what_is_known_between() -> None:
    following = make_ledger(2, opened_ms=OPENED_MS + 5_000)
    # Recorded 3.5 s after the opening, closed 4.5 s after it, the next planned 5 s after it.
    row = replace(a_row(1), validation_s=1.5, ended_at=OPENED_MS / 1000 + 3.5)

    epoch, last = explained(make_ledger(), following, rows=[row, a_row(2)]).epochs

    assert epoch.wall_s == 2.0
    assert epoch.between == pytest.approx({"planning": 0.5, "validation": 1.5, "record": 1.0})
    assert set(epoch.shares) == {*PHASES, *BETWEEN}
    assert sum(epoch.shares.values()) == pytest.approx(1)
    assert epoch.shares["validation"] == pytest.approx(1.5 / 5)
    assert last.between["record"] is None
    assert sum(last.shares.values()) == pytest.approx(1)


def test_the_gap_after_an_epoch_is_not_its_record_if_the_job_was_rebuilt() -> None:
    following = make_ledger(2, opened_ms=OPENED_MS + 86_400_000, gen=2)

    epoch, _ = explained(make_ledger(), following).epochs

    assert epoch.between["record"] is None


def test_an_old_ledger_is_readable_and_says_that_it_has_no_timings() -> None:
    old = make_ledger()
    del old["timings"], old["planning_ms"]

    times = explained(old)

    (epoch,) = times.epochs
    assert (epoch.has_timings, epoch.num_rounds, epoch.num_untimed) == (False, 1, 1)
    assert (epoch.shares, epoch.holdups, times.bottleneck) == ({}, [], "")
    assert epoch.between["planning"] is None


def test_rounds_without_timings_are_in_no_sum() -> None:
    ledger = make_ledger()
    ledger["rounds"]["1"] = ledger["rounds"]["0"]

    (epoch,) = explained(ledger).epochs

    assert (epoch.num_rounds, epoch.num_untimed, epoch.wall_s) == (2, 1, 2.0)


def test_one_epoch_alone_knows_of_the_one_after_it() -> None:
    following = make_ledger(2, opened_ms=OPENED_MS + 5_000)
    row = replace(a_row(1), ended_at=OPENED_MS / 1000 + 3.5)

    times = explained(make_ledger(), following, rows=[row, a_row(2)], only=1)

    assert [epoch.epoch for epoch in times.epochs] == [1]
    assert times.epochs[0].between["record"] == pytest.approx(1.0)


def test_an_epoch_under_way_is_explained_as_far_as_it_is() -> None:
    ledger = make_ledger(parallelism=2)

    times = explain_job(a_spec(), [(None, ledger)])

    (epoch,) = times.epochs
    assert (epoch.is_running, epoch.parallelism, epoch.wall_s) == (True, 2, 2.0)
    assert epoch.between == {"planning": 0.5, "validation": None, "record": None}


def test_the_wait_behind_slots_that_nobody_serves_belongs_to_the_queue() -> None:
    slots = [[0, 0, 700], [700, 700, 1400]]
    ledger = make_ledger(timings={"0": [OPENED_MS, 1500, slots]}, planning_ms=0)
    ledger["rounds"]["0"] = [make_entry(0, worker="w"), make_entry(1, worker="w")]

    times = explained(ledger)

    (epoch,) = times.epochs
    assert epoch.phases["queue"] == pytest.approx(0.35)
    assert epoch.phases["wait"] == pytest.approx(0.35)
    assert (epoch.costs["queue"], epoch.costs["wait"]) == pytest.approx((0.7, 0.0))
    assert times.bottleneck == "queue"
    assert "1.0 serve 2.0 slots" in times.holdups[0].why
    assert times.holdups[0].setting == "workers"


@pytest.mark.parametrize(
    ("phase", "setting", "says"),
    [
        ("queue", "workers", "come late"),
        ("failed", "", "task audit --id j"),
        ("fetch", "--K", "now 2"),
        ("data", "__getitems__", "__getitems__"),
        ("compute", "--parallelism", "more slots"),
        ("push", "--K", "now 2"),
        ("other", "--K", "loads the function"),
        ("wait", "--parallelism", "uneven"),
        ("merge", "--K", "now 2"),
        ("planning", "", "kubeml status"),
        ("validation", "--validate-every", "now 1"),
        ("record", "", "S3"),
    ],
)
def test_each_phase_is_named_with_what_would_help(phase: str, setting: str, says: str) -> None:
    costs = dict.fromkeys([*PHASES, *BETWEEN], 0.01) | {phase: 5.0}

    (found,) = holdups(a_spec(), costs, workers=2, slots=2)

    assert (found.phase, found.setting) == (phase, setting)
    assert found.share > 0.9
    assert says in f"{found.why}; {found.remedy}"


def test_with_one_merge_per_epoch_no_larger_k_is_recommended() -> None:
    (found,) = holdups(replace(a_spec(), k=-1), {"merge": 1.0}, workers=2, slots=2)

    assert found.setting == "--parallelism"
    assert "one merge per epoch already" in found.remedy


def test_whatever_else_is_worth_a_setting_follows_the_bottleneck() -> None:
    costs = {"compute": 5.0, "merge": 3.0, "push": 1.5, "fetch": 0.5}

    found = holdups(a_spec(), costs, workers=2, slots=2)

    assert [holdup.phase for holdup in found] == ["compute", "merge", "push"]
    assert found[1].share == pytest.approx(0.3)


def test_the_json_document_has_these_fields() -> None:
    wire = explained(make_ledger()).to_wire()

    assert set(wire) == {"job_id", "epochs", "holdups", "bottleneck"}
    epoch = wire["epochs"][0]
    assert set(epoch) == {
        "epoch", "gen", "parallelism", "is_running", "num_rounds", "num_untimed", "num_workers",
        "wall_s", "phases", "between", "shares", "holdups", "rounds", "has_timings", "bottleneck",
    }  # fmt: skip
    assert set(epoch["phases"]) == set(PHASES)
    assert set(epoch["between"]) == set(BETWEEN)
    assert set(epoch["holdups"][0]) == {"phase", "share", "why", "setting", "remedy"}
    round_ = epoch["rounds"][0]
    assert set(round_) == {"round", "wall_s", "slots", "phases"}
    assert set(round_["slots"][0]) == {"slot", "worker", "attempt", "phases"}
    assert set(round_["slots"][0]["phases"]) == set(round_["phases"]) == set(PHASES)


def test_bars_have_every_phase_and_the_length_of_the_whole() -> None:
    assert set(_LOOKS) == {*PHASES, *BETWEEN}
    assert len({letter for letter, _ in _LOOKS.values()}) == len(_LOOKS)
    assert sum(bar_cells(dict.fromkeys(_LOOKS, 1 / len(_LOOKS)), 50).values()) == 50
    assert sum(bar_cells({"queue": 0.3, "merge": 0.2}, 50).values()) == 25
    assert bar_cells({"queue": 0.666, "merge": 0.334}, 3) == dict.fromkeys(_LOOKS, 0) | {
        "queue": 2,
        "merge": 1,
    }


def test_job_without_a_merged_round_has_nothing_to_explain() -> None:
    times = explain_job(a_spec(), [])

    assert times.epochs == []
    assert times.bottleneck == ""
