"""Where the time of one round went, slot by slot, adding up to its wall time. Pure.

The state server's clock says when a round was opened, when a slot was taken and its contribution
handed in, and when the round was merged. The worker itself measured what it did in between. No two
clocks are compared. History rows and ``task explain`` are made from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any, Self

#: The phases that a worker measures of its slot, in order.
MEASURED = ("fetch", "data", "compute", "push")

#: Phases of a slot's round, in order: until it was begun (perhaps by a worker that served another
#: slot first); attempts that came to nothing; the phases that its worker measured; the rest of its
#: worker's time; until the last slot was handed in; until the merge was committed.
PHASES = ("queue", "failed", *MEASURED, "other", "wait", "merge")


#: How many rounds of an epoch are evaluated for its row: enough for means, and quick.
_MOST_ROUNDS = 256


@dataclass(frozen=True, kw_only=True)
class RoundClock:
    """What the state server's clock says of a round.

    Attributes:
        opened_s: When it was opened, in Unix seconds.
        merged_s: Seconds from its opening to its merge.
        slots: For each slot, seconds from the opening until it was first begun, until the attempt
            that counts was begun, and until that was handed in.
    """

    opened_s: float
    merged_s: float
    slots: list[tuple[float, float, float]]

    @classmethod
    def from_wire(cls, wire: Any) -> Self | None:
        """Read ``[opened, merged, [[begun, taken, in], ...]]``, in ms.

        Returns:
            The clock; None if it is missing, or impossible (the server's clock may have jumped).
        """
        try:
            opened, merged, slots = wire
            slots_s = [(begun / 1000, taken / 1000, came / 1000) for begun, taken, came in slots]
            clock = cls(opened_s=opened / 1000, merged_s=merged / 1000, slots=slots_s)
        except (TypeError, ValueError):
            return None
        in_order = [0 <= begun <= taken <= came <= clock.merged_s for begun, taken, came in slots_s]
        has_ends = clock.opened_s > 0 and clock.merged_s > 0
        return clock if has_ends and in_order and all(in_order) else None


@dataclass(frozen=True, kw_only=True)
class SlotTimes:
    """Where a slot's time went in one round.

    Attributes:
        slot, worker, attempt: The slot, the worker that trained it, and which attempt that was.
        phases: Every phase to its seconds; they add up to the round's wall time.
    """

    slot: int
    worker: str
    attempt: int
    phases: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RoundTimes:
    """Where a round's time went.

    Attributes:
        round: The round's number, from 0.
        wall_s: Seconds from its opening to its merge.
        slots: Its slots, in order.
    """

    round: int
    wall_s: float
    slots: list[SlotTimes]

    @cached_property
    def phases(self) -> dict[str, float]:
        """Every phase to its seconds, which are the mean of the slots."""
        return _mean([slot.phases for slot in self.slots])

    @property
    def num_workers(self) -> int:
        """Number of workers that trained it."""
        return len({slot.worker for slot in self.slots})


def epoch_phases(
    rounds: Mapping[int, Sequence[Mapping[str, Any]]], clocks: Mapping[int, Any]
) -> tuple[dict[str, float], float | None]:
    """Return where an epoch's time went, for its history row.

    Args:
        rounds: Round to what it merged, as in the ledger.
        clocks: The ledger's ``timings``.

    Returns:
        First, each phase, and ``ahead`` (``--overlap``), to its seconds, which are means over the
        slots, summed over the rounds. Second, the mean number of workers in a round. In long epochs
        some rounds stand for all; rounds without timings are taken to be like the others. If no
        round has timings, an empty mapping and None.
    """
    step = -(-len(rounds) // _MOST_ROUNDS)
    timed = [
        (entries, times)
        for index, entries in sorted(rounds.items())[:: step or 1]
        if (times := explain_round(index, entries, clocks.get(index))) is not None
    ]
    if not timed:
        return {}, None
    phases = dict.fromkeys((*PHASES, "ahead"), 0.0)
    for entries, times in timed:
        ahead = [_seconds((entry.get("timings") or {}).get("ahead")) for entry in entries]
        for phase, seconds in (times.phases | {"ahead": sum(ahead) / len(ahead)}).items():
            phases[phase] += seconds * len(rounds) / len(timed)
    workers = sum(times.num_workers for _, times in timed) / len(timed)
    return {phase: round(seconds, 6) for phase, seconds in phases.items()}, round(workers, 3)


def explain_round(
    index: int, entries: Sequence[Mapping[str, Any]], clock: Any
) -> RoundTimes | None:
    """Return where a round's time went.

    Args:
        index: The round.
        entries: What it merged, as in the ledger.
        clock: Its entry in the ledger's ``timings``; None if there is none.

    Returns:
        The times; None if its timings are missing or contradictory.
    """
    read = RoundClock.from_wire(clock)
    entries = sorted(entries, key=lambda entry: int(entry["slot"]))
    if read is None or len(read.slots) != len(entries):
        return None
    last = max(came for _, _, came in read.slots)
    slots = []
    for entry, (begun, taken, came) in zip(entries, read.slots, strict=True):
        phases = {"queue": begun, "failed": taken - begun}
        phases |= _measured(entry.get("timings") or {}, came - taken)
        phases |= {"wait": last - came, "merge": read.merged_s - last}
        slots.append(
            SlotTimes(
                slot=entry["slot"], worker=entry["worker"], attempt=entry["attempt"], phases=phases
            )
        )
    return RoundTimes(round=index, wall_s=read.merged_s, slots=slots)


def _measured(timings: Mapping[str, Any], held_s: float) -> dict[str, float]:
    """Return what a worker measured of the time it held a slot; ``other`` is the rest.

    It measures inside that time, by its own clock. If its sum is larger, it is scaled down.
    """
    said = {phase: _seconds(timings.get(phase)) for phase in MEASURED}
    total = sum(said.values())
    if total > held_s:
        said = {phase: seconds * held_s / total for phase, seconds in said.items()}
    return said | {"other": max(0.0, held_s - total)}


def _seconds(value: object) -> float:
    is_time = isinstance(value, int | float) and isfinite(value) and value > 0
    return float(value) if is_time else 0.0  # type: ignore[arg-type]


def _mean(many: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {phase: sum(one[phase] for one in many) / len(many) for phase in PHASES}
