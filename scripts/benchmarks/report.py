"""A benchmark's outcome: shown as tables, kept as JSON and as a picture."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.measures import Series, Target, percentile

#: Draws on a matplotlib figure of its own.
Draw = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one benchmark found.

    Attributes:
        name: The benchmark.
        counted: What exactly was timed or counted, for people.
        series: Every measured quantity.
        targets: Those with a goal.
        facts: About this run: data, epochs, batch …
        draw: The picture; bars of all series unless given.
    """

    name: str
    counted: Sequence[str]
    series: Sequence[Series]
    targets: Sequence[Target] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    draw: Draw | None = None

    def show(self, console: Console) -> None:
        """Print the tables."""
        for key, value in {**machine_facts(), **self.facts}.items():
            console.print(f"{key:<10} {value}", highlight=False)
        table = Table("measured", title=f"benchmark {self.name}", title_justify="left")
        for heading in ("median", "p95", "min", "max", "runs"):
            table.add_column(heading, justify="right")
        table.add_column("unit")
        for s in self.series:
            values = (s.median, percentile(s.values, 95), s.low, s.high)
            table.add_row(s.name, *map(_number, values), str(len(s.values)), s.unit)
        console.print(table)
        if self.targets:
            goals = Table("target", "wanted", "median", "", title="targets", title_justify="left")
            for t in self.targets:
                verdict = "[green]met[/]" if t.is_met else "[red]missed[/]"
                goals.add_row(t.series.name, t.wanted, _number(t.series.median), verdict)
            console.print(goals)
        for line in self.counted:
            console.print(f"- {line}", highlight=False)

    def write(self, folder: Path) -> list[Path]:
        """Write ``NAME.json`` and ``NAME.png``, replacing older ones, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "benchmark": self.name,
            "facts": {**machine_facts(), **self.facts},
            "counted": list(self.counted),
            "series": [series.to_wire() for series in self.series],
            "targets": [target.to_wire() for target in self.targets],
        }
        data, picture = folder / f"{self.name}.json", folder / f"{self.name}.png"
        data.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
        save_picture(picture, self.draw or self._draw_bars)
        return [data, picture]

    def _draw_bars(self, figure: Any) -> None:
        units = list(dict.fromkeys(series.unit for series in self.series))
        for axes, unit in zip(
            figure.subplots(len(units), 1, squeeze=False)[:, 0], units, strict=True
        ):
            rows = [series for series in self.series if series.unit == unit][::-1]
            middles = [series.median for series in rows]
            spread = [[s.median - s.low for s in rows], [s.high - s.median for s in rows]]
            axes.barh([s.name for s in rows], middles, xerr=spread, color="tab:blue", capsize=3)
            axes.set_xlabel(unit)
        figure.suptitle(f"{self.name}: medians, min to max")


def save_picture(file: Path, draw: Draw) -> None:
    """Write what ``draw`` draws as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(9, 6), dpi=90)
    draw(figure)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def machine_facts() -> dict[str, str]:
    """What the numbers depend on, without naming the machine."""
    load = os.getloadavg()[0]
    return {
        "machine": f"{os.cpu_count()} cores, {_cpu_model()}, {platform.system()}",
        "versions": f"kubeml {version('kubeml')}, torch {version('torch')},"
        f" Python {platform.python_version()}",
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()) + f", load {load:.1f}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
