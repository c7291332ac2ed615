"""How long an epoch takes with N slots on W workers, fitted to the epochs that were. Pure.

With s = S / (N K B) rounds (S rows, K batches of B rows; one round if K is -1):

    t(N, W) = waves (S / N * c(w) + s o) (1 + u) + s m(N)
    waves   = ceil(N / W), w = min(N, W)
    c(w)    = c0 + c1 w      work per sample: computing, and building batches; c1 is what workers
                             take from each other (cores, memory) where they share a machine
    o                        work per slot and round: fetch, push, and what else a worker does
    u                        waiting for slower slots, as a part of the work
    m(N)    = a + b N        merge and commit of a round

Each term is fitted by itself, since the ledger's timings tell them apart (``EpochRow.phases``):
lines by weighted least squares with no negative slope or intercept, the rest as weighted means.
What one N (or one w) cannot tell is assumed: half of a merge grows with N, and workers do not
hamper each other. Recent epochs count more, odd ones little. In a job's first epoch, and
where N or W has grown, workers load the function and the rows: such *cold* epochs do not tell ``o``
and ``u``, unless there are no others, and then without loading and fetching.

Compare the time of an iteration in Pollux, with a constant and a slope each for the gradients and
for what synchronises them: A. Qiao et al., "Pollux: Co-adaptive Cluster Scheduling for
Goodput-Optimized Deep Learning", OSDI 2021, section 3.2 (arXiv:2008.12260).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from statistics import median_low
from typing import Self

from kubeml.jobs.results import EpochRow

#: An epoch counts so much less than the one after it.
_FADING = 0.8
#: An epoch counts so much if slots were trained again, or if it took more than twice as long as
#: is usual with its N and W: a machine that was paused, or a network that was away.
_ODD = 0.05
#: Of a merge, what grows with N, until two N were seen.
MERGE_GROWS = 0.5

_WORK = ("data", "compute", "ahead")
_OVERHEAD = ("fetch", "push", "other")
#: What comes once, when a worker begins.
_LOADING = ("queue", "fetch", "other")

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochModel:
    """The time of an epoch, as its module says it.

    Attributes:
        num_rows, rows_per_round: S, and K B; None for one round per epoch.
        work: c0 and c1, in seconds per sample.
        overhead_s: o.
        unevenness: u.
        merge: a and b, in seconds per round.
    """

    num_rows: int
    rows_per_round: int | None
    work: tuple[float, float]
    overhead_s: float
    unevenness: float
    merge: tuple[float, float]

    @classmethod
    def fit(
        cls,
        history: Sequence[EpochRow],
        *,
        num_rows: int,
        batch_size: int,
        k: int,
        merge_grows: float = MERGE_GROWS,
    ) -> Self | None:
        """Fit the model.

        Args:
            history: Rows of epochs, oldest first.
            num_rows: Samples of an epoch.
            batch_size: B.
            k: K; -1 for one round per epoch.
            merge_grows: Which part of a merge grows with N, until two N were seen.

        Returns:
            None if no row has timings.
        """
        seen = _seen(history)
        if not seen:
            return None
        work = fit_line(((one.workers, one.work_s, one.weight) for one in seen), growing=0.0)
        merge = fit_line(((one.slots, one.merge_s, one.weight) for one in seen), merge_grows)
        warm = [one for one in seen if not one.is_cold] or seen
        return cls(
            num_rows=num_rows,
            rows_per_round=None if k == -1 else k * batch_size,
            work=work,
            overhead_s=_mean((one.overhead_s, one.weight) for one in warm),
            unevenness=_mean((one.unevenness, one.weight) for one in warm),
            merge=merge,
        )

    def rounds(self, slots: int) -> float:
        """Rounds of an epoch. Not rounded up, so that one slot more is never a step."""
        if self.rows_per_round is None:
            return 1.0
        return max(1.0, self.num_rows / slots / self.rows_per_round)

    def epoch_s(self, slots: int, workers: int) -> float:
        """The time of an epoch, from PLAN to its last merge."""
        return self.serving_s(slots, workers) + self.merging_s(slots)

    def serving_s(self, slots: int, workers: int) -> float:
        """The part of it in which workers serve slots."""
        side_by_side = min(slots, workers)
        per_sample = self.work[0] + self.work[1] * side_by_side
        of_slot = self.num_rows / slots * per_sample + self.rounds(slots) * self.overhead_s
        return ceil(slots / workers) * of_slot * (1 + self.unevenness)

    def merging_s(self, slots: int) -> float:
        """The part of it in which rounds are merged."""
        return self.rounds(slots) * (self.merge[0] + self.merge[1] * slots)


def fit_line(points: Iterable[Point], growing: float) -> tuple[float, float]:
    """Fit ``y = a + b x`` by weighted least squares, with a and b not negative.

    Args:
        points: (x, y, weight), x > 0.
        growing: Which part of y grows with x, if there is but one x to know it from.

    Returns:
        a and b.
    """
    points = list(points)
    total = sum(weight for _, _, weight in points)
    x_mean = sum(x * weight for x, _, weight in points) / total
    y_mean = sum(y * weight for _, y, weight in points) / total
    spread = sum(weight * (x - x_mean) ** 2 for x, _, weight in points)
    if spread <= 1e-9 * total * x_mean**2:
        return y_mean * (1 - growing), y_mean * growing / x_mean
    covariance = sum(weight * (x - x_mean) * (y - y_mean) for x, y, weight in points)
    slope = max(0.0, covariance / spread)
    if y_mean >= slope * x_mean:
        return y_mean - slope * x_mean, slope
    # Through the origin: the best line there without a negative intercept.
    square = sum(weight * x * x for x, _, weight in points)
    return 0.0, sum(weight * x * y for x, y, weight in points) / square


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one epoch tells: each term of the model, and how much it counts."""

    slots: int
    workers: float
    work_s: float
    overhead_s: float
    unevenness: float
    merge_s: float
    is_cold: bool
    weight: float


def _seen(history: Sequence[EpochRow]) -> list[_Seen]:
    found = []
    before: EpochRow | None = None
    for age, row in zip(range(len(history) - 1, -1, -1), history, strict=True):
        usual_s = median_low([one.duration_s for one in history if _is_like(one, row)])
        weight = _FADING**age * (_ODD if row.retries or row.duration_s > 2 * usual_s else 1.0)
        one = _of_epoch(row, is_cold=_is_cold(row, before), weight=weight)
        found += [one] if one else []
        before = row
    return found


def _is_like(one: EpochRow, other: EpochRow) -> bool:
    return (one.parallelism, one.num_workers) == (other.parallelism, other.num_workers)


def _is_cold(row: EpochRow, before: EpochRow | None) -> bool:
    if before is None:
        return row.epoch == 1
    return row.parallelism > before.parallelism or row.num_workers > before.num_workers


def _of_epoch(row: EpochRow, *, is_cold: bool, weight: float) -> _Seen | None:
    phases = _phases(row.phases)
    if not phases or row.rounds < 1 or row.samples < 1 or not row.mean_workers:
        return None
    slots, rounds = row.parallelism, row.rounds
    workers = max(1.0, min(float(slots), row.mean_workers))
    if is_cold:
        phases |= dict.fromkeys(_LOADING, 0.0)
    # Means of the slots, summed over the rounds: of all slots together, N times as much.
    work = sum(phases[phase] for phase in _WORK)
    overhead = sum(phases[phase] for phase in _OVERHEAD)
    # What was trained ahead was trained while something else was waited for: first the merge.
    merge = max(0.0, phases["merge"] - phases["ahead"])
    wall = sum(seconds for phase, seconds in phases.items() if phase not in {"ahead", "failed"})
    serving = ceil(slots / round(workers)) * (work + overhead)
    idle = max(0.0, wall - merge - serving)
    return _Seen(
        slots=slots,
        workers=workers,
        work_s=work * slots / row.samples,
        overhead_s=overhead / rounds,
        unevenness=idle / serving if serving > 0 else 0.0,
        merge_s=merge / rounds,
        is_cold=is_cold,
        weight=weight,
    )


def _phases(raw: Mapping[str, object]) -> dict[str, float]:
    """Every phase to its seconds; empty if there are none. What is no time counts as 0."""
    names = {"queue", "failed", "wait", "merge", *_WORK, *_OVERHEAD}
    read = {name: _time(raw.get(name)) for name in names}
    return read if any(read.values()) else {}


def _time(value: object) -> float:
    is_time = isinstance(value, int | float) and isfinite(value) and value > 0
    return float(value) if is_time else 0.0  # type: ignore[arg-type]


def _mean(values: Iterable[tuple[float, float]]) -> float:
    values = list(values)
    return sum(value * weight for value, weight in values) / sum(weight for _, weight in values)
