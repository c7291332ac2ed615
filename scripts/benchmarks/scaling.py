"""Throughput of two workers over twice plain PyTorch: what distribution costs."""

import argparse
from collections import defaultdict

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.race import race
from scripts.benchmarks.report import all_series, publish, ratio, target

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


def run(options: argparse.Namespace) -> None:
    """Take turns."""
    epochs, repeat = (3, 1) if options.quick else (5, 5)
    rates: dict[str, list[float]] = defaultdict(list)

    def plain(processes: int) -> float:
        """Samples per second of that many processes at once, each with all the rows."""
        results = race(
            "sgd", data=digits.file, batch=BATCH, lr=pool.LR, epochs=epochs, processes=processes
        )  # fmt: skip
        return sum(r["samples"] * (epochs - 1) / sum(r["seconds"][1:]) for r in results)

    with pool.embedded_stack() as client:
        digits = pool.put_digits(client, options, throughput=True)
        pool.put_function(client, "lenet", *pool.LENET)
        # Once for nothing: the workers load torch, and the shards.
        pool.train(client, "lenet", epochs=1, parallelism=2, k=64, batch_size=BATCH)
        for _ in range(options.repeat or repeat):
            rates["1 plain"].append(plain(1))
            for slots, k in ((2, 64), (2, 16), (1, 64)):
                name = f"kubeml N={slots} K={k}"
                steady, through = kubeml(client, epochs=epochs, parallelism=slots, k=k)
                rates[name].append(steady)
                rates[f"{name}, by the wall clock"].append(through)
            rates["2 plain at once"].append(plain(2))
    found = all_series(rates, "samples/s")
    alone, both = found["1 plain"], found["2 plain at once"]
    k64, k16, single = (found[f"kubeml {of}"] for of in ("N=2 K=64", "N=2 K=16", "N=1 K=64"))
    goals = [
        (ratio("N=2 K=64 / (2 x plain)", k64, alone, times=2), 0.95),
        (ratio("N=2 K=16 / (2 x plain)", k16, alone, times=2), 0.88),
        (ratio("N=1 K=64 / plain", single, alone), 0.97),
    ]
    others = [
        ratio("2 plain at once / (2 x plain)", both, alone, times=2),
        ratio("N=2 K=64 / 2 plain at once", k64, both),
        ratio("N=2 K=16 / 2 plain at once", k16, both),
    ]
    publish(
        options, COUNTED, [*found.values(), *(row for row, _ in goals), *others],
        targets=[target(row, at_least=goal) for row, goal in goals],
        facts={"data": digits.source, "epochs": f"{epochs} a run, the first not counted"},
    )  # fmt: skip


def kubeml(client: Client, *, epochs: int, parallelism: int, k: int) -> tuple[float, float]:
    """Samples per second of a job: of training alone, and by the wall clock."""
    job = pool.train(client, "lenet", epochs=epochs, parallelism=parallelism, k=k, batch_size=BATCH)
    rows = job.history()
    return pool.steady_rate(rows), pool.through_rate(rows)
