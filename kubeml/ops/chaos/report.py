"""What a chaos run found: how soon the pool recovered from each kind of kill. Pure."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kubeml.jobs.spec import State


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One process that was killed.

    Attributes:
        at: Unix seconds.
        kind: worker, ps, control, broker or s3.
        name: The process.
        recovery_s: The longest pause of a job that the kill may have caused, see
            ``with_recovery``; None if nothing moved any more.
    """

    at: float
    kind: str
    name: str
    recovery_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """A job's live state at the moment its change was seen; ``at`` is in Unix seconds."""

    at: float
    gen: int
    state: str
    version: int
    job_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """One merged round, for the curves; ``at`` is in Unix seconds."""

    at: float
    samples: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """One job of the run, as it ended.

    Attributes:
        job_id, state, accuracy, weights_sha256, elapsed_s: How it ended.
        slots_redone: Slots trained again within their rounds.
        rounds_redone: Rounds merged again because the loss of Redis threw the job back.
        generations: How often its live state was built.
        faults: What its audit found; empty if every row counted once in every epoch.
    """

    job_id: str
    state: State
    accuracy: float | None
    weights_sha256: str
    elapsed_s: float
    slots_redone: int = 0
    rounds_redone: int = 0
    generations: int = 1
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class KindSummary:
    """How soon the pool recovered from kills of one kind, in seconds.

    ``cost_s`` is the part beyond the usual time between two merges.
    """

    kind: str
    kills: int
    median_s: float | None
    p95_s: float | None
    max_s: float | None
    cost_s: float | None


@dataclass(frozen=True, kw_only=True)
class ChaosReport:
    """The result of a whole run.

    Attributes:
        calm: The undisturbed job.
        runs: The jobs under chaos.
        kills: The kills, in order.
        usual_s: Median time between two merges of the undisturbed job, in seconds.
        merges: All merged rounds, for the curves.
    """

    calm: JobRun
    runs: list[JobRun]
    kills: list[Kill]
    usual_s: float
    merges: list[Merge]

    @property
    def faults(self) -> list[str]:
        """What must not happen: jobs that did not end well, rows that did not count once."""
        found = [f"job {run.job_id} is {run.state}" for run in self.runs if not _is_done(run)]
        return found + [f"job {r.job_id}: {fault}" for r in self.runs for fault in r.faults]

    @property
    def accuracy_gap(self) -> float | None:
        """The largest distance from the undisturbed job's accuracy, in points."""
        reached = [run.accuracy for run in self.runs if run.accuracy is not None]
        if not reached or self.calm.accuracy is None:
            return None
        return max(abs(accuracy - self.calm.accuracy) for accuracy in reached)

    @property
    def same_bits(self) -> bool:
        """Whether every job ended with the undisturbed job's very weights."""
        return all(run.weights_sha256 == self.calm.weights_sha256 for run in self.runs)

    def summaries(self) -> list[KindSummary]:
        """A summary for each kind that was killed, in alphabetical order."""
        return [self._summary(kind) for kind in sorted({kill.kind for kill in self.kills})]

    def to_wire(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            **asdict(self),
            "summaries": [asdict(summary) for summary in self.summaries()],
            "accuracy_gap": self.accuracy_gap,
            "same_bits": self.same_bits,
            "faults": self.faults,
        }

    def _summary(self, kind: str) -> KindSummary:
        kills = [kill for kill in self.kills if kill.kind == kind]
        times = sorted(kill.recovery_s for kill in kills if kill.recovery_s is not None)
        median = statistics.median(times) if times else None
        return KindSummary(
            kind=kind,
            kills=len(kills),
            median_s=median,
            p95_s=times[min(len(times) - 1, int(0.95 * len(times)))] if times else None,
            max_s=times[-1] if times else None,
            cost_s=max(0.0, median - self.usual_s) if median is not None else None,
        )


def with_recovery(kills: Sequence[Kill], seen: Sequence[Change]) -> list[Kill]:
    """Return each kill with the longest pause of a job that it may have caused.

    The pause is the longest time without progress between this kill and the next one. If nothing
    moved before the next kill, the pause lasts beyond it. The longest counts rather than the first,
    because a worker's death is felt only when its slot is missed, and merges that were under way
    come before that. The time between two jobs is no pause. A new generation is no progress: work
    begins again there.
    """
    marks = _marks(seen)
    horizons = [*(kill.at for kill in kills[1:]), math.inf]
    return [
        replace(kill, recovery_s=_longest_pause(kill.at, until, marks))
        for kill, until in zip(kills, horizons, strict=True)
    ]


def _marks(seen: Sequence[Change]) -> list[tuple[float, bool]]:
    """Return the instants of progress (True) and of a job's beginning (False), in order."""
    marks = [(seen[0].at, False)] if seen else []
    for before, later in itertools.pairwise(seen):
        if later.job_id != before.job_id:
            marks.append((later.at, False))
        elif later.gen == before.gen and (later.version, later.state) != (
            before.version,
            before.state,
        ):
            marks.append((later.at, True))
    return marks


def _longest_pause(since: float, until: float, marks: list[tuple[float, bool]]) -> float | None:
    after = [mark for mark in marks if mark[0] > since]
    pauses = []
    for at, is_progress in [mark for mark in after if mark[0] <= until] or after[:1]:
        if is_progress:
            pauses.append(at - since)
        since = at
    return max(pauses, default=None)


def usual_interval(seen: Sequence[Change]) -> float:
    """Return the median time between two merges, in seconds; 0 if there are too few."""
    at = [p.at for b, p in itertools.pairwise(seen) if p.version > b.version]
    gaps = [later - before for before, later in itertools.pairwise(at)]
    return statistics.median(gaps) if gaps else 0.0


def rounds_lost(seen: Sequence[Change]) -> int:
    """Return how many merges a new generation had to do again."""
    return sum(
        max(0, before.version - later.version)
        for before, later in itertools.pairwise(seen)
        if later.gen > before.gen
    )


def _is_done(run: JobRun) -> bool:
    return run.state is State.DONE
