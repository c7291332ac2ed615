"""The pictures of the loads."""

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.loads.report import TOLERANCE, ShareRow
from scripts.loads.traces import Trace, workers_over_time


def draw_crowd(figure: Any, traces: Sequence[Trace], rows: Sequence[ShareRow]) -> None:
    """Shares against what was due, and workers by job over time."""
    top, bottom = figure.subplots(2, 1)
    offs = [100 * row.share.off for row in rows]
    top.bar(range(len(rows)), offs, color="tab:blue")
    for edge in (-TOLERANCE, TOLERANCE):
        top.axhline(100 * edge, color="tab:red", linewidth=0.8, linestyle="--")
    top.axhline(0, color="black", linewidth=0.8)
    top.set_xticks(range(len(rows)), [row.name for row in rows], rotation=90, fontsize=7)
    top.set_ylabel("% off its due")
    draw_workers(bottom, traces)


def draw_workers(axes: Any, traces: Sequence[Trace]) -> None:
    """Workers by job over time, as a stacked area; nothing if nobody worked."""
    if not traces:
        return
    middles, means = workers_over_time(traces)
    axes.stackplot(middles, *means.values(), linewidth=0)
    axes.set_xlabel("s since the first submission")
    axes.set_ylabel("workers, by job")


def draw_pool(
    figure: Any, traces: Sequence[Trace], there: Sequence[tuple[float, int]] = ()
) -> None:
    """Workers by job over time, how many there were, and how long the jobs waited.

    Args:
        figure: Where.
        traces: The jobs.
        there: When (Unix seconds) the number of workers became how large.
    """
    top, bottom = figure.subplots(2, 1)
    draw_workers(top, traces)
    if there and traces:
        begin_s = min(t.submitted_s for t in traces)
        top.step(
            [at - begin_s for at, _ in there], [number for _, number in there], where="post",
            color="black", linewidth=1, label="workers there are",
        )  # fmt: skip
        top.legend(loc="upper right")
    for label, waits in (
        ("submission to first slot", [t.first_wait_s for t in traces]),
        ("longest time without a worker", [t.longest_wait_s for t in traces]),
    ):
        ordered = sorted(waits)
        parts = [(at + 1) / len(ordered) for at in range(len(ordered))]
        bottom.step(ordered, parts, where="post", label=label)
    bottom.set_xlabel("s")
    bottom.set_ylabel("part of the jobs")
    bottom.legend()


def draw_rounds(figure: Any, walls: Mapping[str, Sequence[float]]) -> None:
    """The time of each round, in each of several ways."""
    axes = figure.subplots()
    for label, seconds in walls.items():
        axes.plot(range(1, len(seconds) + 1), seconds, "o-", label=label)
    axes.set_xlabel("round")
    axes.set_ylabel("s")
    axes.set_ylim(bottom=0)
    axes.legend()
