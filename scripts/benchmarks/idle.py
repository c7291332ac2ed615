"""What a stack costs that has nothing to do."""

import argparse
import time
from collections import defaultdict

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.report import publish, series, target

WORKERS = 2

COUNTED = (
    "all processes of `kubeml up --workers 2`: supervisor, Valkey, S3, parameter server, control,"
    " workers and their children",
    "CPU: user and system time of all of them over the watched time, as a share of one core",
    "RSS: the sum over the processes at the end, which counts shared pages once for each; PSS"
    " shares them out",
    "fresh: started and never used, the workers hold torch; used: after a job of one epoch on both",
)

MIB = 2**20

#: What is wanted of a stack, fresh or used: at most so much of a core (percent), and so many bytes.
MOST_CPU, MOST_BYTES = 3.0, 1.2e9


def run(options: argparse.Namespace) -> None:
    """Watch a fresh stack, then one that has trained."""
    watched_s, settle_s = (5.0, 2.0) if options.quick else (60.0, 10.0)
    values: dict[str, list[float]] = defaultdict(list)

    def watch(client: Client, when: str) -> None:
        """Note what the stack uses while nothing is asked of it."""
        time.sleep(settle_s)
        processes = pool.processes(client)
        before = sum(sum(p.cpu_times()[:2]) for p in processes)
        started = time.monotonic()
        time.sleep(watched_s)
        used_s = sum(sum(p.cpu_times()[:2]) for p in processes) - before
        values[f"{when}, CPU"].append(100 * used_s / (time.monotonic() - started))
        memory = [p.memory_full_info() for p in processes]
        values[f"{when}, RSS"].append(sum(m.rss for m in memory) / MIB)
        values[f"{when}, PSS"].append(sum(m.pss for m in memory) / MIB)

    for _ in range(options.repeat or 1):
        with pool.embedded_stack(workers=WORKERS) as client:
            watch(client, "fresh")
            pool.put_digits(client, options)
            pool.put_function(client, "lenet", *pool.LENET)
            pool.train(client, "lenet", epochs=1, batch_size=64, parallelism=WORKERS, k=16)
            watch(client, "used")
    rows = [
        series(name, "% of a core" if name.endswith("CPU") else "MiB", found)
        for name, found in values.items()
    ]
    goals = {"% of a core": MOST_CPU, "MiB": round(MOST_BYTES / MIB)}
    publish(
        options, COUNTED, rows, targets=[target(row, at_most=goals[row["unit"]]) for row in rows],
        facts={"watched": f"{watched_s:g} s, {settle_s:g} s after the last work"},
    )  # fmt: skip
