"""The pause between two rounds: from the last batch of one to the first batch of the next."""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from scripts.benchmarks import pool, stamps
from scripts.benchmarks.report import all_series, publish, target
from scripts.benchmarks.stamps import Stamps

BATCH, SLOTS, K = 16, 2, 8

COUNTED = (
    "the user's `train` notes the time before a round's first batch and after its last one",
    "gap: for each slot and round, from the last batch of the round before (of whichever slot ended"
    " it last) to the slot's own first batch; rounds of one epoch, without the first epoch",
    "in it: push, contribution, hint, merge, commit, bell, fetch, load, gathering the round's rows"
    " and building its first batch",
    "between epochs: the same from an epoch's last batch to the next one's first: with checkpoint,"
    " history and planning",
    "fetch, push: the workers' own timings of those rounds, from the job's ledger",
)


def run(options: argparse.Namespace) -> None:
    """Train, and read the stamps."""
    values: dict[str, list[float]] = defaultdict(list)
    gaps: list[float] = []
    repeat, epochs = options.repeat or (1 if options.quick else 5), 3
    with pool.embedded_stack(workers=SLOTS) as client:
        digits = pool.put_digits(client, options, throughput=True)
        pool.put_function(client, "timed", *pool.TIMED)
        for _ in range(repeat):
            stamps.clear(client)
            job = pool.train(
                client, "timed", epochs=epochs, parallelism=SLOTS, k=K, batch_size=BATCH
            )
            noted = stamps.read(client)
            found = [
                1000 * gap for epoch in range(2, epochs + 1) for gap in round_gaps(noted, epoch)
            ]
            gaps += found
            values["gap, p50"].append(statistics.median(found))
            values["gap, p95"].append(float(np.percentile(found, 95)))
            ledger = client.backends.records.ledger(job.id, epochs) or {"rounds": {}}
            timings = [entry["timings"] for round_ in ledger["rounds"].values() for entry in round_]
            for phase in ("fetch", "push"):
                middle_s = statistics.median(timing[phase] for timing in timings)
                values[f"{phase}, p50"].append(1000 * middle_s)
            values["between epochs"] += [1000 * gap for gap in epoch_gaps(noted, epochs)]
    series = all_series(values, "ms")
    job = f"LeNet, batch {BATCH}, N={SLOTS}, K={K}, {len(gaps):,} gaps"
    publish(
        options, COUNTED, list(series.values()), targets=[target(series["gap, p50"], at_most=3.0)],
        facts={"data": digits.source, "job": job}, draw=lambda figure: draw_histogram(figure, gaps),
    )  # fmt: skip


def round_gaps(noted: Stamps, epoch: int) -> Iterable[float]:
    """Seconds from the last slot's end of each round to each slot's begin of the next."""
    slots = [noted[epoch, slot] for slot in range(SLOTS)]
    for index in range(min(len(ended) for _, ended in slots) - 1):
        last = max(ended[index] for _, ended in slots)
        yield from (begun[index + 1] - last for begun, _ in slots if index + 1 < len(begun))


def epoch_gaps(noted: Stamps, epochs: int) -> Iterable[float]:
    """Seconds from each epoch's last batch to the first batch of the next."""
    for epoch in range(1, epochs):
        last = max(noted[epoch, slot][1][-1] for slot in range(SLOTS))
        yield min(noted[epoch + 1, slot][0][0] for slot in range(SLOTS)) - last


def draw_histogram(figure: Any, gaps: Sequence[float]) -> None:
    """The gaps up to their 99th percentile."""
    axes = figure.subplots()
    edge = np.percentile(gaps, 99)
    axes.hist([gap for gap in gaps if gap <= edge], bins=60, color="tab:blue")
    for percent, colour in ((50, "black"), (95, "tab:red")):
        at = np.percentile(gaps, percent)
        axes.axvline(at, color=colour, label=f"p{percent} = {at:.2f} ms")
    axes.set_xlabel("ms from a round's last batch to the next round's first")
    axes.set_ylabel("slots and rounds")
    axes.legend()
