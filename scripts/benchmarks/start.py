"""From submitting a job to its first batch: what it costs to ask for a little training."""

import argparse
import shutil
import time

from kubeml.client.client import Client
from scripts.benchmarks import pool, stamps
from scripts.benchmarks.report import publish, series, target

COUNTED = (
    "from just before `Client.train()` to the moment a worker calls the user's `train` for the"
    " first time; the stack is warm: its workers have served a job of another function before",
    "cached: the function and the shards of all rows are in the workers' cache",
    "not cached: another function (by content) of the same code, and the shard and function cache"
    " is emptied before every job",
    "a worker that has served the very job before is not counted on: every job is loaded anew",
)


def run(options: argparse.Namespace) -> None:
    """Submit, wait for the first batch, stop; in turns."""
    cached, fresh = [], []
    with pool.embedded_stack() as client:
        digits = pool.put_digits(client, options, throughput=True)
        pool.put_function(client, "lenet", *pool.LENET)
        pool.train(client, "lenet", epochs=1, batch_size=64, parallelism=2)
        pool.put_function(client, "timed", *pool.TIMED)
        first_batch_s(client)
        for turn in range(options.repeat or (3 if options.quick else 20)):
            cached.append(first_batch_s(client))
            pool.put_function(client, "timed", *pool.TIMED, constants=f"TURN = {turn}\n")
            empty_cache(client)
            fresh.append(first_batch_s(client))
    found = [series("cached", "s", cached), series("not cached", "s", fresh)]
    publish(
        options, COUNTED, found,
        targets=[target(row, at_most=most) for row, most in zip(found, (0.5, 2.0), strict=True)],
        facts={"data": digits.source, "job": "LeNet, batch 64, N=2, K=16"},
    )  # fmt: skip


def first_batch_s(client: Client) -> float:
    """Seconds from submission to the first batch of a job, which is stopped then."""
    stamps.clear(client)
    started = time.monotonic()
    job = pool.submit(client, "timed", epochs=1, batch_size=64, parallelism=2, k=16)
    begun = stamps.first_batch(client)
    pool.stop(job)
    return begun - started


def empty_cache(client: Client) -> None:
    """Remove every shard and function that the workers have downloaded."""
    for file in (client.settings.cache_dir / "shards").glob("*"):
        if file.is_file():
            file.unlink()
    shutil.rmtree(client.settings.cache_dir / "functions", ignore_errors=True)
