"""A benchmark's outcome: rows of JSON, shown as tables, and kept with a picture."""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

#: Draws on a matplotlib figure of its own.
Draw = Callable[[Any], None]

#: A row of the JSON: a measured quantity as ``series`` makes it, or a goal as ``target`` does.
Row = dict[str, Any]


def series(name: str, unit: str, values: Sequence[float]) -> Row:
    """One measured quantity: at least one value, in the order in which they were measured."""
    return {
        "name": name, "unit": unit, "values": list(values), "median": statistics.median(values),
        "p95": float(np.percentile(values, 95)), "low": min(values), "high": max(values),
    }  # fmt: skip


def all_series(values: Mapping[str, Sequence[float]], unit: str) -> dict[str, Row]:
    """Several quantities of one unit, by name."""
    return {name: series(name, unit, found) for name, found in values.items()}


def ratio(name: str, above: Row, below: Row, *, times: float = 1.0) -> Row:
    """``above / (times * below)``, repetition by repetition: both ran within minutes."""
    pairs = zip(above["values"], below["values"], strict=True)
    return series(name, "x", [a / (times * b) for a, b in pairs])


def target(of: Row, *, at_least: float | None = None, at_most: float | None = None) -> Row:
    """What a series' median is wanted to be: one of the two bounds."""
    median = of["median"]
    is_met = median >= at_least if at_least is not None else median <= at_most
    return {
        "name": of["name"], "measured": median, "unit": of["unit"],
        "at_least": at_least, "at_most": at_most, "met": is_met,
    }  # fmt: skip


def fit_power_law(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Exponent and factor of ``y = factor * x ** exponent``, by least squares of the logarithms.

    Raises:
        ValueError: There are not two different x.
    """
    slope, intercept = statistics.linear_regression(
        [math.log(x) for x in xs], [math.log(y) for y in ys]
    )
    return slope, math.exp(intercept)


def publish(
    options: argparse.Namespace,
    counted: Sequence[str],
    rows: Sequence[Row],
    *,
    targets: Sequence[Row] = (),
    facts: Mapping[str, str] | None = None,
    draw: Draw | None = None,
) -> None:
    """Print the tables, and write ``NAME.json`` and ``NAME.png``, replacing older ones.

    Args:
        options: The name of the benchmark, and the folder ``out`` for the results.
        counted: What exactly was timed or counted, for people.
        rows: Every measured quantity.
        targets: Those with a goal.
        facts: About this run: data, epochs, batch …
        draw: The picture; bars of all series unless given.
    """
    document = {
        "benchmark": options.name, "facts": {**machine_facts(), **(facts or {})},
        "counted": list(counted), "series": list(rows), "targets": list(targets),
    }  # fmt: skip
    _show(document, Console())
    options.out.mkdir(parents=True, exist_ok=True)
    data, picture = (options.out / f"{options.name}.{kind}" for kind in ("json", "png"))
    data.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    save_picture(picture, draw or (lambda figure: _draw_bars(figure, options.name, rows)))
    print(data, picture, sep="\n")


def _show(document: Mapping[str, Any], console: Console) -> None:
    for key, value in document["facts"].items():
        console.print(f"{key:<10} {value}", highlight=False)
    title = f"benchmark {document['benchmark']}"
    table = Table("measured", title=title, title_justify="left")
    for heading in ("median", "p95", "min", "max", "runs"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    for row in document["series"]:
        numbers = [_number(row[column]) for column in ("median", "p95", "low", "high")]
        table.add_row(row["name"], *numbers, str(len(row["values"])), row["unit"])
    console.print(table)
    if document["targets"]:
        goals = Table("target", "wanted", "median", "", title="targets", title_justify="left")
        for t in document["targets"]:
            verdict = "[green]met[/]" if t["met"] else "[red]missed[/]"
            goals.add_row(t["name"], wanted(t), _number(t["measured"]), verdict)
        console.print(goals)
    for line in document["counted"]:
        console.print(f"- {line}", highlight=False)


def wanted(goal: Row) -> str:
    """A target's bound, for people."""
    return f"≥ {goal['at_least']:g}" if goal["at_most"] is None else f"≤ {goal['at_most']:g}"


def _draw_bars(figure: Any, name: str, rows: Sequence[Row]) -> None:
    units = list(dict.fromkeys(row["unit"] for row in rows))
    for axes, unit in zip(figure.subplots(len(units), 1, squeeze=False)[:, 0], units, strict=True):
        of_unit = [row for row in rows if row["unit"] == unit][::-1]
        middles = [row["median"] for row in of_unit]
        spread = [
            [row["median"] - row["low"] for row in of_unit],
            [row["high"] - row["median"] for row in of_unit],
        ]
        names = [row["name"] for row in of_unit]
        axes.barh(names, middles, xerr=spread, color="tab:blue", capsize=3)
        axes.set_xlabel(unit)
    figure.suptitle(f"{name}: medians, min to max")


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
