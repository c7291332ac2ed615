"""Throughput of two workers over twice plain PyTorch: what distribution costs."""

import argparse
import tempfile
from pathlib import Path

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.digits import FULL_ROWS, load
from scripts.benchmarks.measures import Series, Target, ratio
from scripts.benchmarks.race import Contestant, race
from scripts.benchmarks.report import Report

BATCH = 16

COUNTED = (
    "all train LeNet, batch 16, SGD with momentum, one thread per process, batches gathered in one"
    " go from arrays in memory; the contestants take turns, the stack idles while plain runs",
    "plain: rows of an epoch / seconds from its first batch to its last, without the first epoch",
    "2 plain at once: the sum of the rates of two such processes that start together",
    "kubeml: rows / `duration_s` of the history rows (from an epoch's plan to its last merge, all"
    " merges included), without the first epoch; optimizer state carried",
    "kubeml, by the wall clock: the same rows / time from row to row, so that checkpoint, history"
    " and planning between epochs count as well; without the first and the last epoch",
)


def run(options: argparse.Namespace) -> Report:
    """Take turns."""
    digits = load(options.mnist, rows=10_000 if options.quick else FULL_ROWS)
    epochs, repeat = (3, 1) if options.quick else (5, 5)
    values: dict[str, list[float]] = {}
    with pool.embedded_stack() as client, tempfile.TemporaryDirectory() as folder:
        pool.put_digits(client, digits)
        pool.put_function(client, "lenet", *pool.LENET)
        data = digits.save(Path(folder))
        # Once for nothing: the workers load torch, and the shards.
        pool.train(client, "lenet", epochs=1, parallelism=2, k=64, batch_size=BATCH)
        for _ in range(options.repeat or repeat):
            measured = {"1 plain": plain(data, epochs, processes=1)}
            for name, slots, k in (
                ("kubeml N=2 K=64", 2, 64), ("kubeml N=2 K=16", 2, 16), ("kubeml N=1 K=64", 1, 64),
            ):  # fmt: skip
                steady, through = kubeml(client, epochs=epochs, parallelism=slots, k=k)
                measured |= {name: steady, f"{name}, by the wall clock": through}
            measured["2 plain at once"] = plain(data, epochs, processes=2)
            for name, value in measured.items():
                values.setdefault(name, []).append(value)
    rates = {name: Series(name=name, unit="samples/s", values=v) for name, v in values.items()}
    alone, both = rates["1 plain"], rates["2 plain at once"]
    k64, k16, single = (rates[f"kubeml {of}"] for of in ("N=2 K=64", "N=2 K=16", "N=1 K=64"))
    targets = [
        Target(series=ratio("N=2 K=64 / (2 x plain)", k64, alone, times=2), at_least=0.95),
        Target(series=ratio("N=2 K=16 / (2 x plain)", k16, alone, times=2), at_least=0.88),
        Target(series=ratio("N=1 K=64 / plain", single, alone), at_least=0.97),
    ]
    others = [
        ratio("2 plain at once / (2 x plain)", both, alone, times=2),
        ratio("N=2 K=64 / 2 plain at once", k64, both),
        ratio("N=2 K=16 / 2 plain at once", k16, both),
    ]
    return Report(
        name="scaling",
        counted=COUNTED,
        series=[*rates.values(), *(target.series for target in targets), *others],
        targets=targets,
        facts={"data": digits.source, "epochs": f"{epochs} a run, the first not counted"},
    )


def plain(data: Path, epochs: int, *, processes: int) -> float:
    """Samples per second of that many processes at once, each with all the rows."""
    arguments = (data, "--batch", BATCH, "--lr", pool.LR, "--epochs", epochs)
    results = race([Contestant("sgd", *arguments) for _ in range(processes)])
    return sum(r["samples"] * (epochs - 1) / sum(r["seconds"][1:]) for r in results)


def kubeml(client: Client, *, epochs: int, parallelism: int, k: int) -> tuple[float, float]:
    """Samples per second of a job: of training alone, and by the wall clock."""
    job = pool.train(client, "lenet", epochs=epochs, parallelism=parallelism, k=k, batch_size=BATCH)
    rows = job.history()
    return pool.steady_rate(rows), pool.through_rate(rows)
