"""Where a job's time went, epoch by epoch, what held it up, and what would help. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any

from kubeml.analysis.bottleneck import Holdup, holdups
from kubeml.jobs.results import EpochRow
from kubeml.jobs.round_times import PHASES, RoundClock, RoundTimes, explain_round
from kubeml.jobs.spec import JobSpec

#: Phases between the rounds of two epochs.
BETWEEN = ("planning", "validation", "record")


@dataclass(frozen=True, kw_only=True)
class EpochTimes:
    """Where an epoch's time went.

    Attributes:
        epoch, gen, parallelism: Which epoch, in which generation, with which N.
        is_running: Whether it is under way; then only what was merged so far is here.
        num_rounds: Rounds merged.
        num_untimed: How many of them have no timings, or impossible ones; they are in no sum.
        num_workers: Workers that trained it.
        wall_s: Seconds from the opening of its first round to its last merge, without untimed
            rounds.
        phases: Every phase of the rounds to its seconds, which are the sum of the rounds' means.
        between: Seconds of planning before it, and of validation and record (checkpoint, row and
            ledger) after it; None if unknown. ``record`` is known only from the next epoch.
        shares: Each known phase, of the rounds or between them, to its part of all, from 0 to 1.
        holdups: What held it up, the bottleneck first.
        rounds: Its rounds.
    """

    epoch: int
    gen: int
    parallelism: int
    is_running: bool
    num_rounds: int
    num_untimed: int
    num_workers: int
    wall_s: float
    phases: dict[str, float]
    between: dict[str, float | None]
    shares: dict[str, float]
    holdups: list[Holdup]
    rounds: list[RoundTimes]

    @property
    def has_timings(self) -> bool:
        """Whether the timings of any of its rounds are known."""
        return bool(self.rounds)

    @property
    def costs(self) -> dict[str, float]:
        """Seconds by cause, as ``holdups`` wants them."""
        between = {name: seconds for name, seconds in self.between.items() if seconds is not None}
        behind_queue = sum(
            round_.phases["wait"]
            for round_ in self.rounds
            if round_.num_workers < len(round_.slots)
        )
        moved = {
            "queue": self.phases["queue"] + behind_queue,
            "wait": self.phases["wait"] - behind_queue,
        }
        return self.phases | moved | between


@dataclass(frozen=True, kw_only=True)
class JobTimes:
    """Where a job's time went.

    Attributes:
        job_id: The job.
        epochs: The epochs that were asked for, and are recorded or under way.
        holdups: What held them up, the bottleneck first.
    """

    job_id: str
    epochs: list[EpochTimes]
    holdups: list[Holdup] = field(default_factory=list)

    @property
    def bottleneck(self) -> str:
        """The phase that took most of the time; "" if no time is known."""
        return self.holdups[0].phase if self.holdups else ""

    def to_wire(self) -> dict[str, Any]:
        """Return the times as JSON-able values."""
        wire = asdict(self) | {"bottleneck": self.bottleneck}
        for epoch, times in zip(wire["epochs"], self.epochs, strict=True):
            epoch["has_timings"] = times.has_timings
            epoch["bottleneck"] = times.holdups[0].phase if times.holdups else ""
            for round_, of_round in zip(epoch["rounds"], times.rounds, strict=True):
                round_["phases"] = of_round.phases
        return wire


def explain_job(
    spec: JobSpec,
    epochs: Sequence[tuple[EpochRow | None, Mapping[str, Any]]],
    *,
    only: int | None = None,
) -> JobTimes:
    """Say where the time of a job's epochs went.

    Args:
        spec: The job's spec.
        epochs: Each epoch's history row (None: under way) and ledger, in order.
        only: Explain this epoch alone. The epoch after it tells how long its record took.
    """
    following = [ledger for _, ledger in epochs[1:]]
    explained = [
        _explain_epoch(spec, row, ledger, after)
        for (row, ledger), after in zip_longest(epochs, following)
        if only is None or ledger["epoch"] == only
    ]
    costs: dict[str, float] = {}
    for epoch in explained:
        for phase, seconds in epoch.costs.items() if epoch.has_timings else ():
            costs[phase] = costs.get(phase, 0.0) + seconds
    rounds = [round_ for epoch in explained for round_ in epoch.rounds]
    return JobTimes(job_id=spec.id, epochs=explained, holdups=_holdups(spec, costs, rounds))


def _explain_epoch(
    spec: JobSpec,
    row: EpochRow | None,
    ledger: Mapping[str, Any],
    following: Mapping[str, Any] | None,
) -> EpochTimes:
    clocks = ledger.get("timings") or {}
    merged = sorted(ledger["rounds"].items(), key=lambda item: int(item[0]))
    rounds = [
        explained
        for text, entries in merged
        if (explained := explain_round(int(text), entries, clocks.get(text))) is not None
    ]
    phases = dict.fromkeys(PHASES, 0.0)
    for round_ in rounds:
        phases = {phase: seconds + round_.phases[phase] for phase, seconds in phases.items()}
    between = _between(row, ledger, following)
    known = phases | {name: seconds for name, seconds in between.items() if seconds is not None}
    total = sum(known.values())
    times = EpochTimes(
        epoch=ledger["epoch"],
        gen=ledger["gen"],
        parallelism=row.parallelism if row else ledger["parallelism"],
        is_running=row is None,
        num_rounds=len(merged),
        num_untimed=len(merged) - len(rounds),
        num_workers=len({entry["worker"] for _, entries in merged for entry in entries}),
        wall_s=sum(round_.wall_s for round_ in rounds),
        phases=phases,
        between=between,
        shares={name: s / total for name, s in known.items()} if rounds and total else {},
        holdups=[],
        rounds=rounds,
    )
    return replace(times, holdups=_holdups(spec, times.costs, rounds))


def _between(
    row: EpochRow | None, ledger: Mapping[str, Any], following: Mapping[str, Any] | None
) -> dict[str, float | None]:
    record = None
    opened = _opened_s(following)
    if row and following and opened is not None and following.get("gen") == ledger.get("gen"):
        # The planning of the next epoch began when this one was closed.
        record = max(0.0, opened - following.get("planning_ms", 0) / 1000 - row.ended_at)
    planning = ledger.get("planning_ms")
    return {
        "planning": None if planning is None else max(0.0, planning / 1000),
        "validation": row.validation_s if row else None,
        "record": record,
    }


def _opened_s(ledger: Mapping[str, Any] | None) -> float | None:
    clock = RoundClock.from_wire((ledger or {}).get("timings", {}).get("0"))
    return clock.opened_s if clock else None


def _holdups(
    spec: JobSpec, costs: Mapping[str, float], rounds: Sequence[RoundTimes]
) -> list[Holdup]:
    if not rounds:
        return []
    workers = sum(round_.num_workers for round_ in rounds) / len(rounds)
    slots = sum(len(round_.slots) for round_ in rounds) / len(rounds)
    return holdups(spec, costs, workers=workers, slots=slots)
