"""Where a job's time went, as bars, for ``kubeml task explain``.

Each phase has a letter and a colour: the bars can be read by either, with or without a terminal.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from kubeml.cli import output
from kubeml.cli.views.follow import many

if TYPE_CHECKING:
    from rich.text import Text

    from kubeml.analysis.bottleneck import Holdup
    from kubeml.analysis.explain import EpochTimes, JobTimes
    from kubeml.jobs.round_times import RoundTimes

#: Phase to its letter and colour, in the order of the bars.
_LOOKS: Mapping[str, tuple[str, str]] = {
    "planning": ("P", "bright_black"),
    "queue": ("q", "yellow"),
    "failed": ("x", "red"),
    "fetch": ("f", "cyan"),
    "data": ("d", "blue"),
    "compute": ("c", "green"),
    "push": ("p", "bright_cyan"),
    "other": ("o", "white"),
    "wait": ("w", "bright_yellow"),
    "merge": ("m", "magenta"),
    "validation": ("V", "bright_green"),
    "record": ("R", "bright_magenta"),
}

#: Characters of a bar.
_WIDTH = 60

#: How many of the slowest rounds are shown slot by slot, how many slots of each, and how many
#: epochs as bars; ``--json`` has them all.
_ROUNDS_SHOWN = 3
_SLOTS_SHOWN = 16
_EPOCHS_SHOWN = 20


def show_times(times: "JobTimes") -> None:
    """Print bars of the epochs, shares, bars of the slowest rounds' slots, and what would help."""
    for epoch in times.epochs:
        if epoch.num_untimed:
            output.say(_about_untimed(epoch))
    timed = [epoch for epoch in times.epochs if epoch.has_timings]
    if not timed:
        if not times.epochs:
            output.say("no round is merged yet")
        return
    _show_epochs(timed)
    output.line("")
    _show_rounds(timed)
    output.line("")
    for holdup in times.holdups:
        _show_holdup(holdup, is_first=holdup is times.holdups[0])


def bar_cells(shares: Mapping[str, float], width: int) -> dict[str, int]:
    """Return how many characters each phase gets in a bar; the largest remainders round up.

    Args:
        shares: Phase to its part. They add up to 1 at most; the rest of the bar stays empty.
        width: Length of the whole bar.
    """
    exact = {phase: max(0.0, shares.get(phase, 0.0)) * width for phase in _LOOKS}
    cells = {phase: int(length) for phase, length in exact.items()}
    left = min(width, round(sum(exact.values()))) - sum(cells.values())
    by_remainder = sorted(exact, key=lambda phase: cells[phase] - exact[phase])
    for phase in by_remainder[: max(0, left)]:
        cells[phase] += 1
    return cells


def _show_epochs(epochs: "list[EpochTimes]") -> None:
    used = [phase for phase in _LOOKS if any(e.shares.get(phase, 0) >= 0.005 for e in epochs)]
    _print_legend(used)
    for epoch in epochs[-_EPOCHS_SHOWN:]:
        state = "so far" if epoch.is_running else ""
        total = epoch.wall_s + sum(seconds or 0.0 for seconds in epoch.between.values())
        _print_bar(f"epoch {epoch.epoch:>3}", epoch.shares, f"{total:8.2f} s {state}")
    if len(epochs) > _EPOCHS_SHOWN:
        output.say(f"… and {len(epochs) - _EPOCHS_SHOWN} earlier ones: --json")
    output.line("")
    numbers = ("EPOCH", "N", "WORKERS", "ROUNDS", "S/ROUND", *(phase.upper() for phase in used))
    output.table(
        (*numbers, "BOTTLENECK"),
        [_cells(epoch, used) for epoch in epochs],
        right=numbers,
    )


def _cells(epoch: "EpochTimes", used: list[str]) -> tuple[str, ...]:
    return (
        str(epoch.epoch),
        str(epoch.parallelism),
        str(epoch.num_workers),
        str(epoch.num_rounds),
        f"{epoch.wall_s / len(epoch.rounds):.3f}",
        *(f"{100 * epoch.shares[p]:.0f} %" if p in epoch.shares else "-" for p in used),
        epoch.holdups[0].phase if epoch.holdups else "-",
    )


def _show_rounds(epochs: "list[EpochTimes]") -> None:
    rounds = [(epoch.epoch, round_) for epoch in epochs for round_ in epoch.rounds]
    rounds.sort(key=lambda item: -item[1].wall_s)
    for number, round_ in rounds[:_ROUNDS_SHOWN]:
        output.line(f"slow: epoch {number}, round {round_.round}, {round_.wall_s:.3f} s")
        _show_slots(round_)


def _show_slots(round_: "RoundTimes") -> None:
    for slot in round_.slots[:_SLOTS_SHOWN]:
        shares = {phase: seconds / round_.wall_s for phase, seconds in slot.phases.items()}
        attempt = f", attempt {slot.attempt}" if slot.attempt > 1 else ""
        _print_bar(f"slot {slot.slot:>4}", shares, f"{slot.worker}{attempt}")
    if len(round_.slots) > _SLOTS_SHOWN:
        output.say(f"… and {many(len(round_.slots) - _SLOTS_SHOWN, 'more slot')}: --json")


def _show_holdup(holdup: "Holdup", *, is_first: bool) -> None:
    label = "bottleneck" if is_first else "also"
    output.line(f"{label}: {holdup.phase}, {100 * holdup.share:.0f} % of the time: {holdup.why}")
    output.line(f"  what helps: {holdup.remedy}")


def _about_untimed(epoch: "EpochTimes") -> str:
    if epoch.has_timings:
        return f"epoch {epoch.epoch}: {many(epoch.num_untimed, 'round')} left out, without timings"
    return f"epoch {epoch.epoch} has no timings: an earlier kubeml trained it"


def _print_legend(used: Iterable[str]) -> None:
    from rich.text import Text

    text = Text(f"{'':<11}")
    for phase in used:
        letter, colour = _LOOKS[phase]
        text.append(f" {letter} ", style=f"black on {colour}").append(f" {phase}  ")
    _print(text)


def _print_bar(label: str, shares: Mapping[str, float], tail: str) -> None:
    from rich.text import Text

    text = Text(f"{label:<11}")
    cells = bar_cells(shares, _WIDTH)
    for phase, (letter, colour) in _LOOKS.items():
        text.append(letter * cells[phase], style=f"black on {colour}")
    text.append(" " * (_WIDTH - sum(cells.values())) + f"  {tail}".rstrip())
    _print(text)


def _print(text: "Text") -> None:
    output.stdout().print(text, soft_wrap=True)
