"""A chaos run as a picture: loss and throughput over time, with the kills marked."""

from collections import defaultdict
from pathlib import Path

from kubeml.ops.chaos.report import ChaosReport

_COLOURS = {
    "worker": "tab:blue",
    "ps": "tab:red",
    "control": "tab:purple",
    "broker": "tab:orange",
    "s3": "tab:green",
}

#: Throughput is shown as the mean of this many seconds.
_BIN_S = 2.0


def plot(report: ChaosReport, file: Path) -> None:
    """Write the picture as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    start = min((merge.at for merge in report.merges), default=0.0)
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(10, 5.5), dpi=90)
    times = [merge.at - start for merge in report.merges]
    above.plot(times, [merge.loss for merge in report.merges], ".", markersize=2, color="black")
    above.set_ylabel("training loss of a round")
    bins: dict[int, int] = defaultdict(int)
    for merge in report.merges:
        bins[int((merge.at - start) / _BIN_S)] += merge.samples
    last = max(bins, default=0)
    below.step(
        [number * _BIN_S for number in range(last + 1)],
        [bins[number] / _BIN_S for number in range(last + 1)],
        where="post",
        color="black",
        linewidth=0.8,
    )
    below.set_ylabel("samples/s")
    below.set_xlabel("seconds")
    shown = set()
    for kill in report.kills:
        for axes in (above, below):
            label = kill.kind if axes is above and kill.kind not in shown else None
            axes.axvline(kill.at - start, color=_COLOURS[kill.kind], linewidth=0.9, label=label)
            shown.add(kill.kind)
    if shown:
        above.legend(title="killed", loc="upper right", fontsize=8, title_fontsize=8)
    figure.suptitle(f"kubeml chaos: {len(report.kills)} kills, {len(report.runs)} jobs")
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)
