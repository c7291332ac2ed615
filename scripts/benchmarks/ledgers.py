"""Who held which slot and when, round by round, read off a job's ledgers. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kubeml.jobs.round_times import RoundClock


class Holding(NamedTuple):
    """A worker held a slot, from taking it to handing it in: Unix seconds, the state server's."""

    worker: str
    begin_s: float
    end_s: float


class Round(NamedTuple):
    """A round (from 0) of an epoch (from 1), and who trained its slots, in their order."""

    epoch: int
    round: int
    opened_s: float
    merged_s: float
    holdings: Sequence[Holding]

    @property
    def wall_s(self) -> float:
        """From its opening to its merge."""
        return self.merged_s - self.opened_s


def rounds_of(ledgers: Sequence[Mapping[str, Any]]) -> list[Round]:
    """The rounds that have timings, in order.

    Args:
        ledgers: Those of a job's epochs, as they stand in S3.
    """
    found = []
    for ledger in ledgers:
        clocks = ledger.get("timings") or {}
        for text, entries in sorted(ledger["rounds"].items(), key=lambda item: int(item[0])):
            clock = RoundClock.from_wire(clocks.get(text))
            if clock is None or len(clock.slots) != len(entries):
                continue
            by_slot = sorted(entries, key=lambda entry: int(entry["slot"]))
            opened_s = clock.opened_s
            holdings = [
                Holding(entry["worker"], opened_s + taken, opened_s + came)
                for entry, (_, taken, came) in zip(by_slot, clock.slots, strict=True)
            ]
            merged_s = opened_s + clock.merged_s
            found.append(Round(ledger["epoch"], int(text), opened_s, merged_s, holdings))
    return found
