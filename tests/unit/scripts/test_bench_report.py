import json
import math
from pathlib import Path

import pytest

from scripts.benchmarks.measures import Series, Target, fit_power_law, percentile, ratio
from scripts.benchmarks.report import Report


def a_series(*values: float, name: str = "speed", unit: str = "samples/s") -> Series:
    return Series(name=name, unit=unit, values=values)


def test_series_shows_median_and_spread() -> None:
    series = a_series(3.0, 1.0, 10.0)

    assert (series.median, series.low, series.high) == (3.0, 1.0, 10.0)


def test_ratio_compares_values_of_the_same_turn() -> None:
    compared = ratio("two over one", a_series(19.0, 30.0), a_series(10.0, 10.0), times=2)

    assert compared.values == [0.95, 1.5]
    assert compared.unit == "x"


def test_ratio_refuses_a_contestant_that_missed_a_turn() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio("odd", a_series(1.0, 2.0), a_series(1.0))


@pytest.mark.parametrize(
    ("target", "is_met", "wanted"),
    [
        (Target(series=a_series(0.9, 0.95, 2.0), at_least=0.95), True, "≥ 0.95"),
        (Target(series=a_series(0.9, 0.94, 2.0), at_least=0.95), False, "≥ 0.95"),
        (Target(series=a_series(2.0, 3.0, 9.0), at_most=3.0), True, "≤ 3"),
        (Target(series=a_series(2.0, 3.1, 9.0), at_most=3.0), False, "≤ 3"),
        (Target(series=a_series(0.0), at_most=0.0), True, "≤ 0"),
    ],
)
def test_target_is_met_by_the_median_alone(target: Target, is_met: bool, wanted: str) -> None:
    assert target.is_met == is_met
    assert target.wanted == wanted


@pytest.mark.parametrize(("percent", "value"), [(0, 1.0), (50, 2.5), (95, 3.85), (100, 4.0)])
def test_percentile_lies_between_neighbours(percent: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], percent) == pytest.approx(value)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_fit_finds_the_exponent_of_a_power_law(exponent: float) -> None:
    xs = [1.0, 2.0, 8.0, 64.0]

    law = fit_power_law(xs, [5 * x**exponent for x in xs])

    assert law.exponent == pytest.approx(exponent)
    assert law.at(3.0) == pytest.approx(5 * 3**exponent)


def test_fit_is_steep_only_as_far_as_the_noise_is_even() -> None:
    xs = [1.0, 2.0, 4.0, 8.0]

    law = fit_power_law(xs, [x * noise for x, noise in zip(xs, (1.1, 0.9, 0.9, 1.1), strict=True)])

    assert math.isclose(law.exponent, 1.0, abs_tol=0.01)


def test_fit_refuses_a_single_point() -> None:
    with pytest.raises(ValueError, match="two different x"):
        fit_power_law([2.0, 2.0], [1.0, 3.0])


def test_report_is_kept_as_json_and_as_a_picture(tmp_path: Path) -> None:
    speed, pause = a_series(1.0, 2.0), a_series(5.0, name="pause", unit="ms")
    report = Report(
        name="pace", counted=["rows over seconds"], series=[speed, pause],
        targets=[Target(series=pause, at_most=3.0)], facts={"data": "ten rows"},
    )  # fmt: skip

    data, picture = report.write(tmp_path / "results")

    document = json.loads(data.read_text())
    assert document["facts"]["data"] == "ten rows"
    assert document["series"][0] == {
        "name": "speed", "unit": "samples/s", "values": [1.0, 2.0],
        "median": 1.5, "p95": 1.95, "low": 1.0, "high": 2.0,
    }  # fmt: skip
    assert document["targets"][0]["met"] is False
    assert picture.read_bytes().startswith(b"\x89PNG")
