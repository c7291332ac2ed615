"""How fast a job trains, and how long it will go on at that speed, by its own events. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.rounds.events import Event

#: The speed is that of the last rounds that together took so long (of one round, at the least).
WINDOW_S = 10.0


def samples_per_s(
    events: "Iterable[Event]", *, open_s: float = 0.0, handed_in: int = 0
) -> float | None:
    """Rows trained per second over the last rounds; the time between two epochs does not count.

    The round under way counts once it takes longer than any of those: a job that stands still
    is seen to slow down.

    Args:
        events: The job's events, oldest first.
        open_s: For how long the round under way has been open; 0 if there is none.
        handed_in: Rows of it that were handed in.

    Returns:
        None as long as nothing is known.
    """
    rounds = _last_rounds(events)
    if open_s > max((seconds for seconds, _ in rounds), default=0.0) and (rounds or handed_in):
        rounds.append((open_s, handed_in))
    total_s = sum(seconds for seconds, _ in rounds)
    return sum(samples for _, samples in rounds) / total_s if total_s > 0 else None


def pause_s(events: "Iterable[Event]") -> float:
    """Mean seconds from an epoch's last merge to the next plan: validation, checkpoint, planning.

    Args:
        events: The job's events, oldest first.

    Returns:
        0 if no such pause is among the events.
    """
    pauses: list[float] = []
    ended_at: float | None = None
    for event in events:
        if event.kind == "epoch" and ended_at is not None:
            pauses.append(event.at - ended_at)
        if event.kind in {"epoch", "round", "rebuilt"}:
            is_last = event.kind == "round" and event.fields["round"] == event.fields["rounds"]
            ended_at = event.at if is_last else None
    return sum(pauses) / len(pauses) if pauses else 0.0


def time_left_s(
    samples_left: int, pace: float | None, *, pauses: int = 0, pause_s: float = 0.0
) -> float | None:
    """Seconds until so many rows are trained.

    Args:
        samples_left: How many.
        pace: Rows per second; None if that is not known.
        pauses: Ends of epochs on the way, each of which takes ``pause_s``.
        pause_s: Seconds.

    Returns:
        None if that is not known.
    """
    if samples_left <= 0:
        return 0.0
    return samples_left / pace + pauses * pause_s if pace else None


def _last_rounds(events: "Iterable[Event]") -> list[tuple[float, int]]:
    """(seconds, samples) of the last rounds whose beginning is among the events, oldest first."""
    rounds: list[tuple[float, int]] = []
    begun: tuple[int, int] | None = None
    begun_at = 0.0
    for event in events:
        if event.kind == "epoch":
            begun, begun_at = (event.fields["epoch"], 1), event.at
        elif event.kind == "round":
            epoch, number = event.fields["epoch"], event.fields["round"]
            if begun == (epoch, number):
                rounds.append((event.at - begun_at, event.fields["samples"]))
            begun, begun_at = (epoch, number + 1), event.at
    first = len(rounds)
    total_s = 0.0
    while first and total_s < WINDOW_S:
        first -= 1
        total_s += rounds[first][0]
    return rounds[first:]
