"""What a stack costs that has nothing to do."""

import argparse
import time

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.digits import load
from scripts.benchmarks.measures import Series, Target
from scripts.benchmarks.report import Report

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


def run(options: argparse.Namespace) -> Report:
    """Watch a fresh stack, then one that has trained."""
    watched_s, settle_s = (5.0, 2.0) if options.quick else (60.0, 10.0)
    values: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.repeat or 1):
        with pool.embedded_stack(workers=WORKERS) as client:
            watch(client, "fresh", watched_s, settle_s, values)
            pool.put_digits(client, load(options.mnist))
            pool.put_function(client, "lenet", *pool.LENET)
            pool.train(client, "lenet", epochs=1, batch_size=64, parallelism=WORKERS, k=16)
            watch(client, "used", watched_s, settle_s, values)
    series = [Series(name=name, unit=unit, values=v) for (name, unit), v in values.items()]
    by_name = {s.name: s for s in series}
    return Report(
        name="idle",
        counted=COUNTED,
        series=series,
        targets=[
            Target(series=by_name[f"{when}, {what}"], at_most=most)
            for when in ("fresh", "used")
            for what, most in (
                ("CPU", MOST_CPU),
                ("RSS", round(MOST_BYTES / MIB)),
                ("PSS", round(MOST_BYTES / MIB)),
            )
        ],
        facts={"watched": f"{watched_s:g} s, {settle_s:g} s after the last work"},
    )


def watch(
    client: Client,
    when: str,
    watched_s: float,
    settle_s: float,
    values: dict[tuple[str, str], list[float]],
) -> None:
    """Add what the stack uses while nothing is asked of it."""
    time.sleep(settle_s)
    processes = pool.processes(client)
    before = sum(sum(p.cpu_times()[:2]) for p in processes)
    started = time.monotonic()
    time.sleep(watched_s)
    used_s = sum(sum(p.cpu_times()[:2]) for p in processes) - before
    memory = [p.memory_full_info() for p in processes]
    for what, unit, value in (
        ("CPU", "% of a core", 100 * used_s / (time.monotonic() - started)),
        ("RSS", "MiB", sum(m.rss for m in memory) / MIB),
        ("PSS", "MiB", sum(m.pss for m in memory) / MIB),
    ):
        values.setdefault((f"{when}, {what}", unit), []).append(value)
