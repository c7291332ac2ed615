"""A histogram of durations, as the books keep them: how many took how long. Pure."""

from bisect import bisect_left
from collections.abc import Sequence

#: Upper bounds in seconds: a round may take milliseconds or an hour.
SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class Histogram:
    """Counts observations by upper bounds, as Prometheus does.

    Args:
        bounds: In ascending order. One more bucket is added, for values above all of them.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value. A value equal to a bound falls into that bound's bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were so far."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, number of values up to it) in order; the last bound is ``+Inf``."""
        total, rows = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows
