"""What a load report calls a fault, and which jobs a load draws."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scripts.benchmarks.ledgers import Holding
from scripts.loads.arrivals import LOAD, draw_arrivals, work_s
from scripts.loads.crowd import TURN_S, share_rows
from scripts.loads.report import LoadReport
from scripts.loads.traces import Trace
from scripts.loads.verdicts import Outcome


def a_trace(held_s: float, *, name: str = "j", weight: int = 1) -> Trace:
    holding = Holding(worker="w", begin_s=1.0, end_s=1.0 + held_s)
    return Trace(job_id=name, weight=weight, submitted_s=0.0, merged_s=100.0, holdings=[holding])


def an_outcome(**changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "job_id": "j1", "shape": "N=2", "weight": 1, "state": "DONE", "epochs": 2,
        "elapsed_s": 5.0, "retries": 0, "workers": 2, "bits": "same", "trace": a_trace(4.0),
        "faults": (),
    }  # fmt: skip
    return Outcome(**{**values, **changes})


def a_report(*jobs: Outcome, **changes: Any) -> LoadReport:
    def draw(figure: Any) -> None:
        figure.subplots().plot([0, 1])

    return LoadReport(**{"name": "crowd", "counted": ["it"], "jobs": jobs, "draw": draw, **changes})


def shown(report: LoadReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    report.show(console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_load_without_faults_passes() -> None:
    report = a_report(an_outcome(), shares=share_rows([a_trace(30.0), a_trace(30.0, name="k")]))

    assert report.all_faults == []
    assert "passed" in shown(report)
    assert "1x, same bits" in shown(report)


def test_what_is_wrong_with_a_job_stands_in_its_row_and_fails_the_load() -> None:
    report = a_report(an_outcome(), an_outcome(job_id="j2", faults=["epoch 1: other weights"]))

    assert report.all_faults == ["job j2 (N=2): epoch 1: other weights"]
    assert shown(report).count("epoch 1: other weights") == 2
    assert report.to_wire()["passed"] is False


def test_a_job_that_nobody_trained_can_be_shown() -> None:
    text = shown(a_report(an_outcome(trace=None, state="RUN", faults=["RUN, expected DONE"])))

    assert "RUN, expected DONE" in text


def test_a_share_off_by_more_than_the_tolerance_fails_the_load() -> None:
    # The same time for weights of 1 and 3.
    rows = share_rows([a_trace(40.0, name="a"), a_trace(40.0, name="b", weight=3)])

    report = a_report(an_outcome(), shares=rows)

    assert [row.is_fair for row in rows] == [False] * 4
    assert "a (1) got 40.0 s of the workers' time, was due 20.0 s" in report.all_faults
    assert "unfair" in shown(report)
    # A small load shows its shares all the same.
    small = a_report(an_outcome(), shares=rows, judges_shares=False)
    assert small.all_faults == []
    assert "unfair" in shown(small)


@pytest.mark.parametrize(("held_s", "fair"), [(5.0, True), (8.1, True), (13.0, False)])
def test_a_share_may_be_off_by_a_turn(held_s: float, fair: bool) -> None:
    # Due is half of both: off by 1.5, by about 3, by 5.5; a turn is 4.
    rows = share_rows([a_trace(2.0, name="a"), a_trace(held_s, name="b")])

    assert TURN_S == 4.0
    assert all(row.is_fair for row in rows if row.name.startswith("b")) == fair


def test_a_report_is_kept_as_json_and_as_a_picture(tmp_path: Path) -> None:
    data, picture = a_report(an_outcome(), faults=["too late"]).write(tmp_path / "out")

    wire = json.loads(data.read_text("utf-8"))
    assert data.name == "load-crowd.json"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert wire["faults"] == ["too late"]
    assert wire["jobs"][0]["first_wait_s"] == 1.0
    waits = {series["name"]: series["p95"] for series in wire["series"]}
    assert waits == {"submission to first slot": 1.0, "longest time without a worker": 95.0}


def test_arrivals_are_drawn_by_the_seed_and_ask_for_the_load() -> None:
    plan, again, other = (draw_arrivals(seed, for_s=36_000.0, quick=False) for seed in (1, 1, 2))

    assert plan == again != other
    assert [a.at_s for a in plan] == sorted(a.at_s for a in plan)
    asked_s = sum(a.epochs * work_s(a.shape) for a in plan)
    assert asked_s / (2 * 36_000) == pytest.approx(LOAD, rel=0.1)
    assert {a.shape.static for a in plan} == {True, False}


def test_there_are_arrivals_however_short_the_time_is() -> None:
    assert len(draw_arrivals(0, for_s=0.1, quick=True)) == 3
