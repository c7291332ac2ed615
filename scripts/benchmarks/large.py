"""Merging a large model over a gloo all-reduce of as many bytes, and the memory that it takes."""

import argparse
import statistics
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from kubeml.client.client import Client
from scripts.benchmarks import pool, stamps
from scripts.benchmarks.race import race
from scripts.benchmarks.report import publish, ratio, series, target
from scripts.benchmarks.simulated import seconds_per_round
from scripts.benchmarks.stamps import Merge, Stamps

SLOTS, MB = 2, 10**6

#: Ways of sending the weights: name to the job's options, and how many all-reduces of float32 a
#: round may take.
ARMS: Mapping[str, tuple[Mapping[str, Any], float]] = {
    "fp32": ({}, 3.0),
    "bf16": ({"wire": "bf16"}, 1.5),
}

COUNTED = (
    "a network of parameters alone, K=1, a step that changes one number: a round is its transfer",
    "push: a worker's own timing of sending its weights (the slower slot of a round)",
    "merge: from the last contribution's arrival to the commit of the merged weights, both by the"
    " state server's announcements",
    "fetch: from that commit to the first batch of the last slot to begin: all have the weights",
    "round: merge and fetch, that is from all pushed to all have it",
    "whole: from the last slot's last batch to the last slot's first batch, with packing and push",
    "gloo: all-reduce of as many bytes of float32 between two processes, one thread each, the"
    " slower one, in turns with the jobs",
    "parameter server: its RSS before the job, and the most of it, sampled every 20 ms; with N=16,"
    " participants are threads that hand in what they fetched",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mb", type=int, help="megabytes of float32 parameters; 85 unless given")


def run(options: argparse.Namespace) -> None:
    """Take turns."""
    num_bytes = (options.mb or (20 if options.quick else 85)) * MB
    rounds = 5 if options.quick else 20
    values: dict[str, list[float]] = defaultdict(list)
    with pool.embedded_stack(workers=SLOTS) as client:
        pool.put_rows(client, SLOTS * rounds, SLOTS)
        pool.put_function(
            client, "large", "stamping", "large",
            constants=f"NUM_BYTES = {num_bytes}\nSTEP_S = 0.0\n",
        )  # fmt: skip
        for _ in range(options.repeat or (1 if options.quick else 5)):
            values["gloo"].append(all_reduce_ms(num_bytes, count=rounds))
            for arm, (job_options, _) in ARMS.items():
                for what, value in transfer(client, job_options).items():
                    values[f"{arm} {what}"].append(value)
    most = "parameter server, N=16, most"
    values[most] = [many_slots_mib(num_bytes, rounds=3)]
    rows = {
        name: series(name, "MiB" if "parameter server" in name else "ms", found)
        for name, found in values.items()
    }
    ratios = {
        (arm, what): ratio(f"{arm} {what} / gloo", rows[f"{arm} {what}"], rows["gloo"])
        for arm in ARMS
        for what in ("round", "push", "whole")
    }
    publish(
        options, COUNTED, [*rows.values(), *ratios.values()],
        targets=[
            *(target(ratios[arm, "round"], at_most=bound) for arm, (_, bound) in ARMS.items()),
            target(rows[most], at_most=3 * num_bytes / 2**20 + 150),
        ],
        facts={"model": f"{num_bytes / MB:,.0f} MB of float32, N={SLOTS}, {rounds} rounds a job"},
    )  # fmt: skip


def many_slots_mib(num_bytes: int, *, rounds: int, slots: int = 16) -> float:
    """The most memory of a parameter server that merges so many slots."""
    with pool.embedded_stack(workers=0, lease_s=300.0) as client:
        pool.put_rows(client, slots * (rounds + 2), slots)
        pool.put_function(client, "large", "stamping", "large", constants="NUM_BYTES = 4\n")
        with sampled_rss(pool.processes(client, "ps")) as sizes:
            seconds_per_round(client, slots=slots, num_bytes=num_bytes, rounds=rounds)
    return max(sizes)


def transfer(client: Client, job_options: Mapping[str, Any]) -> dict[str, float]:
    """Medians over the rounds of one job (ms), and the parameter server's memory (MiB)."""
    stamps.clear(client)
    job_id = uuid.uuid4().hex[:8]
    server = pool.processes(client, "ps")
    before_mib = rss_mib(server)
    with stamps.watched_merges(client, job_id) as merges, sampled_rss(server) as sizes:
        job = pool.train(
            client, "large", job_id=job_id, epochs=1, parallelism=SLOTS, k=1, batch_size=1,
            optimizer_state="reset", **job_options,
        )  # fmt: skip
    ledger = client.backends.records.ledger(job.id, 1) or {"rounds": {}}
    pushes = [max(e["timings"]["push"] for e in entries) for entries in ledger["rounds"].values()]
    seconds = {"push": pushes, **phases(stamps.read(client), merges)}
    return {
        **{name: 1000 * statistics.median(found) for name, found in seconds.items()},
        "parameter server, before": before_mib,
        "parameter server, most": max(sizes, default=before_mib),
    }


def phases(noted: Stamps, merges: Sequence[Merge]) -> dict[str, list[float]]:
    """Seconds of each round's merge, fetch, round and whole."""
    slots = [noted[1, slot] for slot in range(SLOTS)]
    found: dict[str, list[float]] = defaultdict(list)
    for index in range(min(len(begun) for begun, _ in slots) - 1):
        ended = max(ends[index] for _, ends in slots)
        begun = max(begins[index + 1] for begins, _ in slots)
        times = next((t for t in merges if ended < t.pushed_at <= t.merged_at < begun), None)
        if times is not None:
            found["merge"].append(times.merged_at - times.pushed_at)
            found["fetch"].append(begun - times.merged_at)
            found["round"].append(begun - times.pushed_at)
            found["whole"].append(begun - ended)
    return found


def all_reduce_ms(num_bytes: int, *, count: int) -> float:
    """Median milliseconds of a gloo all-reduce of as many bytes."""
    results = race(
        "gloo", num_bytes=num_bytes, count=count, processes=SLOTS, is_group=True
    )  # fmt: skip
    slower = [max(seconds) for seconds in zip(*(r["seconds"] for r in results), strict=True)]
    return 1000 * statistics.median(slower)


@contextmanager
def sampled_rss(processes: Sequence[psutil.Process]) -> Iterator[list[float]]:
    """Their memory in MiB, sampled by a thread for as long as the context lasts."""
    sizes: list[float] = []
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(0.02):
            sizes.append(rss_mib(processes))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        stopped.set()
        thread.join()


def rss_mib(processes: Sequence[psutil.Process]) -> float:
    """Resident memory of processes, in MiB."""
    return sum(process.memory_info().rss for process in processes) / 2**20
