"""Samples per second and test accuracy with and without --overlap, of a small and a large model."""

import argparse
from collections import defaultdict

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.large import MB
from scripts.benchmarks.report import publish, ratio, series

BATCH, SLOTS = 16, 2

#: Steps of a round of the large model, and seconds that a step computes.
LARGE_K, STEP_S = 4, 0.05

ARMS = {"plain": False, "overlap": True}

COUNTED = (
    "jobs with and without --overlap take turns on the same workers; optimizer state carried",
    "samples/s: rows / `duration_s` of the history rows (from an epoch's plan to its last merge),"
    " without the first epoch",
    "accuracy: of the validation after the last epoch, the same number of epochs and the same seed"
    " for both; each turn has another seed",
    f"large: parameters alone, {LARGE_K} steps of {STEP_S * 1000:.0f} ms of one core a round: what"
    " overlap can hide is the merge and the fetch, not a worker's push",
    "difference: percentage points of accuracy with overlap minus those without, turn by turn",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mb", type=int, help="megabytes of the large model; 85 unless given")


def run(options: argparse.Namespace) -> None:
    """Take turns."""
    epochs, turns = (2, 1) if options.quick else (5, 5)
    num_bytes = (options.mb or (20 if options.quick else 85)) * MB
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    with pool.embedded_stack(workers=SLOTS) as client:
        digits = pool.put_digits(client, options)
        pool.put_function(client, "lenet", *pool.LENET)
        # Once for nothing: the workers load torch, and the shards.
        pool.train(client, "lenet", epochs=1, parallelism=SLOTS, k=64, batch_size=BATCH)
        for seed in range(options.repeat or turns):
            for k in (4, 16):
                for arm in _in_turn(seed):
                    rate, accuracy = lenet(client, ARMS[arm], epochs=epochs, k=k, seed=seed)
                    values[f"lenet K={k} {arm}", "samples/s"].append(rate)
                    values[f"lenet K={k} {arm}", "%"].append(accuracy)
    with pool.embedded_stack(workers=SLOTS) as client:
        pool.put_rows(client, SLOTS * LARGE_K * (3 if options.quick else 20), SLOTS)
        constants = f"NUM_BYTES = {num_bytes}\nSTEP_S = {STEP_S}\n"
        pool.put_function(client, "large", "stamping", "large", constants=constants)
        for seed in range(options.repeat or turns):
            for arm in _in_turn(seed):
                values[f"large {arm}", "samples/s"].append(large(client, ARMS[arm]))
    rows = {(name, unit): series(name, unit, found) for (name, unit), found in values.items()}
    ratios = [
        ratio(
            f"{of} overlap / plain",
            rows[f"{of} overlap", "samples/s"], rows[f"{of} plain", "samples/s"],
        )
        for of in ("lenet K=4", "lenet K=16", "large")
    ]  # fmt: skip
    differences = []
    for of in ("lenet K=4", "lenet K=16"):
        pairs = zip(values[f"{of} overlap", "%"], values[f"{of} plain", "%"], strict=True)
        differences.append(series(f"{of} difference", "points", [o - p for o, p in pairs]))
    publish(
        options, COUNTED, [*rows.values(), *ratios, *differences],
        facts={
            "data": digits.source, "epochs": f"{epochs} a job, N={SLOTS}, batch {BATCH}",
            "large": f"{num_bytes / MB:,.0f} MB of float32, N={SLOTS}, K={LARGE_K}",
        },
    )  # fmt: skip


def _in_turn(number: int) -> list[str]:
    """The arms, the other one first every other time."""
    return list(ARMS) if number % 2 == 0 else list(ARMS)[::-1]


def lenet(client: Client, overlap: bool, *, epochs: int, k: int, seed: int) -> tuple[float, float]:
    """Samples per second and final test accuracy of one job."""
    job = pool.train(
        client, "lenet", epochs=epochs, parallelism=SLOTS, k=k, batch_size=BATCH, seed=seed,
        overlap=overlap,
    )  # fmt: skip
    rows = job.history()
    return pool.steady_rate(rows), rows[-1].accuracy or 0.0


def large(client: Client, overlap: bool) -> float:
    """Samples per second of one job."""
    job = pool.train(
        client, "large", epochs=2, parallelism=SLOTS, k=LARGE_K, batch_size=1,
        optimizer_state="reset", overlap=overlap,
    )  # fmt: skip
    return pool.steady_rate(job.history())
