"""Measured values and what is read off them. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values of one quantity, one per repetition.

    Attributes:
        name: What was measured.
        unit: In which unit.
        values: At least one, in the order they were measured.
    """

    name: str
    unit: str
    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    def to_wire(self) -> dict[str, Any]:
        """The series as JSON-able values."""
        return {
            "name": self.name, "unit": self.unit, "values": list(self.values),
            "median": self.median, "p95": percentile(self.values, 95),
            "low": self.low, "high": self.high,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a series' median is wanted to be: ``at_least``, or ``at_most``, so much.

    Attributes:
        series: The series it is about.
        at_least, at_most: One of the two; the other is None.
    """

    series: Series
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the median is where it is wanted."""
        if self.at_least is not None:
            return self.series.median >= self.at_least
        return self.at_most is not None and self.series.median <= self.at_most

    @property
    def wanted(self) -> str:
        """The goal, for people."""
        sign, goal = ("≥", self.at_least) if self.at_most is None else ("≤", self.at_most)
        return f"{sign} {goal:g}"

    def to_wire(self) -> dict[str, Any]:
        """The target as JSON-able values."""
        return {
            "name": self.series.name, "measured": self.series.median, "unit": self.series.unit,
            "at_least": self.at_least, "at_most": self.at_most, "met": self.is_met,
        }  # fmt: skip


def ratio(name: str, above: Series, below: Series, *, times: float = 1.0) -> Series:
    """``above / (times * below)``, repetition by repetition: both ran within minutes."""
    pairs = zip(above.values, below.values, strict=True)
    return Series(name=name, unit="x", values=[a / (times * b) for a, b in pairs])


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent lie, between neighbours by straight line."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """``y = factor * x ** exponent``: a straight line on two logarithmic axes."""

    exponent: float
    factor: float

    def at(self, x: float) -> float:
        """The law's ``y``."""
        return self.factor * x**self.exponent


def fit_power_law(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw:
    """The power law through the points, by least squares of the logarithms.

    Args:
        xs: Positive, at least two different ones.
        ys: Positive, as many.

    Raises:
        ValueError: No line goes through them.
    """
    logs = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True)]
    if len({x for x, _ in logs}) < 2:
        raise ValueError("a power law needs two different x")
    mean_x = statistics.fmean(x for x, _ in logs)
    mean_y = statistics.fmean(y for _, y in logs)
    exponent = sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum(
        (x - mean_x) ** 2 for x, _ in logs
    )
    return PowerLaw(exponent=exponent, factor=math.exp(mean_y - exponent * mean_x))
