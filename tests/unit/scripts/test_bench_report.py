import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.report import Row, fit_power_law, publish, ratio, series, target, wanted


def a_series(*values: float, name: str = "speed", unit: str = "samples/s") -> Row:
    return series(name, unit, values)


def test_series_shows_median_and_spread() -> None:
    row = a_series(3.0, 1.0, 10.0)

    assert (row["median"], row["low"], row["high"]) == (3.0, 1.0, 10.0)


def test_ratio_compares_values_of_the_same_turn() -> None:
    compared = ratio("two over one", a_series(19.0, 30.0), a_series(10.0, 10.0), times=2)

    assert compared["values"] == [0.95, 1.5]
    assert compared["unit"] == "x"


def test_ratio_refuses_a_contestant_that_missed_a_turn() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio("odd", a_series(1.0, 2.0), a_series(1.0))


@pytest.mark.parametrize(
    ("values", "bound", "is_met", "text"),
    [
        ((0.9, 0.95, 2.0), {"at_least": 0.95}, True, "≥ 0.95"),
        ((0.9, 0.94, 2.0), {"at_least": 0.95}, False, "≥ 0.95"),
        ((2.0, 3.0, 9.0), {"at_most": 3.0}, True, "≤ 3"),
        ((2.0, 3.1, 9.0), {"at_most": 3.0}, False, "≤ 3"),
        ((0.0,), {"at_most": 0.0}, True, "≤ 0"),
    ],
)
def test_target_is_met_by_the_median_alone(
    values: tuple[float, ...], bound: dict[str, float], is_met: bool, text: str
) -> None:
    goal = target(a_series(*values), **bound)

    assert goal["met"] == is_met
    assert wanted(goal) == text


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_fit_finds_the_exponent_of_a_power_law(exponent: float) -> None:
    xs = [1.0, 2.0, 8.0, 64.0]

    found, factor = fit_power_law(xs, [5 * x**exponent for x in xs])

    assert found == pytest.approx(exponent)
    assert factor * 3.0**found == pytest.approx(5 * 3**exponent)


def test_fit_is_steep_only_as_far_as_the_noise_is_even() -> None:
    xs = [1.0, 2.0, 4.0, 8.0]

    exponent, _ = fit_power_law(
        xs, [x * noise for x, noise in zip(xs, (1.1, 0.9, 0.9, 1.1), strict=True)]
    )

    assert math.isclose(exponent, 1.0, abs_tol=0.01)


def test_fit_refuses_a_single_point() -> None:
    with pytest.raises(ValueError, match="constant"):
        fit_power_law([2.0, 2.0], [1.0, 3.0])


def test_report_is_kept_as_json_and_as_a_picture(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    speed, pause = a_series(1.0, 2.0), a_series(5.0, name="pause", unit="ms")

    publish(
        Namespace(name="pace", out=folder), ["rows over seconds"], [speed, pause],
        targets=[target(pause, at_most=3.0)], facts={"data": "ten rows"},
    )  # fmt: skip

    document: dict[str, Any] = json.loads((folder / "pace.json").read_text())
    assert document["facts"]["data"] == "ten rows"
    assert document["series"][0] == {
        "name": "speed", "unit": "samples/s", "values": [1.0, 2.0],
        "median": 1.5, "p95": 1.95, "low": 1.0, "high": 2.0,
    }  # fmt: skip
    assert document["targets"][0]["met"] is False
    assert (folder / "pace.png").read_bytes().startswith(b"\x89PNG")
