"""How fast a job trains, and how long it will take at that speed, by its own events. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.rounds.events import Event

#: The speed is that of the last rounds that together took this long, and of one round at least.
WINDOW_S = 10.0


def samples_per_s(
    events: "Iterable[Event]", *, open_s: float = 0.0, handed_in: int = 0
) -> float | None:
    """Return the rows trained per second over the last rounds, without the time between epochs.

    The round under way counts once it takes longer than any of those rounds: so a job that stands
    still is seen to slow down.

    Args:
        events: The job's events, oldest first.
        open_s: How long the round under way has been open; 0 if there is none.
        handed_in: How many of its rows were handed in.

    Returns:
        The speed; None as long as it is unknown.
    """
    rounds = _last_rounds(events)
    if open_s > max((seconds for seconds, _ in rounds), default=0.0) and (rounds or handed_in):
        rounds.append((open_s, handed_in))
    total_s = sum(seconds for seconds, _ in rounds)
    return sum(samples for _, samples in rounds) / total_s if total_s > 0 else None


def pause_s(events: "Iterable[Event]") -> float:
    """Return the mean seconds from an epoch's last merge to the next plan.

    They go into validation, the checkpoint and planning.

    Args:
        events: The job's events, oldest first.

    Returns:
        The mean; 0 if there is no such pause among the events.
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
    """Return the seconds until the rest of the rows is trained.

    Args:
        samples_left: How many rows are left.
        pace: Rows per second; None if unknown.
        pauses: How many epochs end on the way.
        pause_s: How many seconds each of these ends takes.

    Returns:
        The seconds; None if they are unknown.
    """
    if samples_left <= 0:
        return 0.0
    return samples_left / pace + pauses * pause_s if pace else None


def _last_rounds(events: "Iterable[Event]") -> list[tuple[float, int]]:
    """Return (seconds, samples) of the last rounds whose begin is in the events, oldest first."""
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
