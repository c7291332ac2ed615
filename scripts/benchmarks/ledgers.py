"""Who held which slot and when, round by round, read off a job's ledgers. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubeml.jobs.round_times import RoundClock


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A worker held a slot of a job, from taking it to handing it in.

    Attributes:
        worker: Its name.
        begin_s, end_s: Unix seconds, the state server's clock.
    """

    worker: str
    begin_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round of an epoch.

    Attributes:
        epoch, round: From 1; from 0.
        opened_s, merged_s: Unix seconds.
        holdings: Who trained its slots, in the order of the slots.
    """

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
            found.append(
                Round(
                    epoch=ledger["epoch"],
                    round=int(text),
                    opened_s=clock.opened_s,
                    merged_s=clock.opened_s + clock.merged_s,
                    holdings=[
                        Holding(
                            worker=entry["worker"],
                            begin_s=clock.opened_s + taken,
                            end_s=clock.opened_s + came,
                        )
                        for entry, (_, taken, came) in zip(by_slot, clock.slots, strict=True)
                    ],
                )
            )
    return found
