"""Who worked for which job and when: shares and waiting times. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.benchmarks.ledgers import Holding, Round


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A job's course.

    Attributes:
        job_id: The job.
        weight: Its priority.
        submitted_s: When it was submitted, Unix seconds.
        merged_s: When its last round was merged.
        holdings: Who trained its slots: the work that counted.
    """

    job_id: str
    weight: int
    submitted_s: float
    merged_s: float
    holdings: Sequence[Holding]

    def held_s(self, begin_s: float, end_s: float) -> float:
        """Worker-seconds that it had within a window."""
        return sum(max(0.0, min(h.end_s, end_s) - max(h.begin_s, begin_s)) for h in self.holdings)

    @property
    def first_wait_s(self) -> float:
        """From the submission to the first slot that was trained."""
        return min(h.begin_s for h in self.holdings) - self.submitted_s

    @property
    def longest_wait_s(self) -> float:
        """The longest time without any worker, from the submission to the last merge."""
        longest, idle_since = 0.0, self.submitted_s
        for holding in sorted(self.holdings, key=lambda h: h.begin_s):
            longest = max(longest, holding.begin_s - idle_since)
            idle_since = max(idle_since, holding.end_s)
        return max(longest, self.merged_s - idle_since)


def trace(job_id: str, weight: int, submitted_s: float, rounds: Sequence[Round]) -> Trace | None:
    """A job's course; None if none of its rounds is known."""
    if not rounds:
        return None
    return Trace(
        job_id=job_id, weight=weight, submitted_s=submitted_s,
        merged_s=rounds[-1].merged_s, holdings=[h for round_ in rounds for h in round_.holdings],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a job, or all jobs of a weight, got of the workers' time while all jobs wanted them.

    Attributes:
        got_s: Worker-seconds that it had.
        due_s: Those that were its due: the part of all that were had, by its weight.
    """

    got_s: float
    due_s: float

    @property
    def off(self) -> float:
        """How far it is off: 0.1 for a tenth more than its due."""
        return self.got_s / self.due_s - 1


def crowded(traces: Sequence[Trace]) -> tuple[float, float]:
    """From the last submission until the first job had no more work, in Unix seconds."""
    begin_s = max(t.submitted_s for t in traces)
    return begin_s, max(begin_s, min(t.merged_s for t in traces))


def shares(traces: Sequence[Trace], window: tuple[float, float]) -> dict[str, Share]:
    """Each job's share of the worker time in a window, by job id.

    Args:
        traces: All jobs that there were; all of them could have used every worker.
        window: Unix seconds.

    Raises:
        ValueError: Nobody worked in the window.
    """
    got = {t.job_id: t.held_s(*window) for t in traces}
    total, weights = sum(got.values()), sum(t.weight for t in traces)
    if not total:
        raise ValueError("nobody worked while all jobs wanted workers")
    return {t.job_id: Share(got_s=got[t.job_id], due_s=total * t.weight / weights) for t in traces}


def shares_by_weight(traces: Sequence[Trace], found: Mapping[str, Share]) -> dict[int, Share]:
    """The shares of all jobs of a weight together."""
    return {
        weight: Share(
            got_s=sum(found[t.job_id].got_s for t in traces if t.weight == weight),
            due_s=sum(found[t.job_id].due_s for t in traces if t.weight == weight),
        )
        for weight in sorted({t.weight for t in traces})
    }


def workers_over_time(
    traces: Sequence[Trace], *, bins: int = 200
) -> tuple[list[float], dict[str, list[float]]]:
    """Mean number of workers of each job in each of so many equal times.

    Returns:
        The middles of these times, in seconds since the first submission, and the means by job.
    """
    begin_s = min(t.submitted_s for t in traces)
    width_s = (max(t.merged_s for t in traces) - begin_s) / bins
    edges = [begin_s + at * width_s for at in range(bins + 1)]
    middles = [(at + 0.5) * width_s for at in range(bins)]
    means = {
        t.job_id: [t.held_s(edges[at], edges[at + 1]) / width_s for at in range(bins)]
        for t in traces
    }
    return middles, means
