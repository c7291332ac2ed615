"""Time to an accuracy on the test digits: kubeml over torch DDP, two processes each."""

import argparse
from collections import defaultdict
from pathlib import Path

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.race import race
from scripts.benchmarks.report import publish, ratio, series, target

#: Rows per process and step, and how many times as long DDP is wanted to take.
BATCHES = {16: 2.5, 64: 1.6}

#: Steps between two merges, by batch. More cost accuracy per epoch, fewer cost time.
K = {16: 64, 64: 32}

#: Accuracy wanted (percent) with all of MNIST, and with the digits that ship with kubeml.
FULL_GOAL, SUBSET_GOAL = 98.5, 95.0
MAX_EPOCHS = 20

PROCESSES = 2

COUNTED = (
    "both train LeNet with SGD (momentum 0.9), the same learning rate and the same batch per"
    " process, one thread each, and evaluate on all test digits after every epoch, both processes"
    " sharing them",
    "training: the epochs' own times, evaluation left out on both sides (kubeml: `duration_s`, an"
    " epoch's plan to its last merge; DDP: an epoch's first batch to its last)",
    "in all: from the first epoch's beginning to the end of the evaluation that reaches the goal;"
    " for kubeml with checkpoints, history and planning, which DDP does not have",
    "both warm: processes up, torch and data loaded, process group made",
    "kubeml: optimizer state carried, "
    + ", ".join(f"K={k} at batch {batch}" for batch, k in K.items()),
    f"a run that does not reach the goal is stopped after {MAX_EPOCHS} epochs, and is named above",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--goal", type=float, help="test accuracy (percent) to be reached")


def run(options: argparse.Namespace) -> None:
    """Take turns, batch by batch; name the runs that fell short."""
    goal = options.goal or (FULL_GOAL if options.mnist else SUBSET_GOAL)
    if options.quick:
        goal = min(goal, 85.0)
    values: dict[str, list[float]] = defaultdict(list)
    short: list[str] = []
    with pool.embedded_stack(workers=PROCESSES) as client:
        digits = pool.put_digits(client, options)
        pool.put_function(client, "lenet", *pool.LENET)
        pool.train(client, "lenet", epochs=1, parallelism=PROCESSES, batch_size=64)
        for turn in range(options.repeat or (1 if options.quick else 5)):
            for batch in BATCHES:
                for name, (training_s, all_s, epochs, accuracy) in (
                    (f"kubeml, batch {batch}", kubeml(client, batch, goal, seed=turn)),
                    (f"DDP, batch {batch}", ddp(digits.file, batch, goal, seed=turn)),
                ):
                    values[f"{name}, training"].append(training_s)
                    values[f"{name}, in all"].append(all_s)
                    values[f"{name}, epochs"].append(epochs)
                    if accuracy < goal:
                        short.append(f"{name}, turn {turn + 1}: {accuracy:.2f} %")
    rows = {
        name: series(name, "epochs" if name.endswith("epochs") else "s", found)
        for name, found in values.items()
    }
    ratios = {
        (batch, what): ratio(
            f"DDP / kubeml, batch {batch}, {what}",
            rows[f"DDP, batch {batch}, {what}"], rows[f"kubeml, batch {batch}, {what}"],
        )
        for batch in BATCHES for what in ("training", "in all")
    }  # fmt: skip
    facts = {"data": digits.source, "goal": f"{goal:g} % of {digits.num_test:,} test digits"}
    if short:
        facts["NOT REACHED"] = "; ".join(short) + " (their times are too low)"
    publish(
        options, COUNTED, [*rows.values(), *ratios.values()], facts=facts,
        targets=[target(ratios[batch, "training"], at_least=x) for batch, x in BATCHES.items()],
    )  # fmt: skip


def kubeml(
    client: Client, batch: int, goal: float, *, seed: int
) -> tuple[float, float, float, float]:
    """Seconds of training, seconds in all, epochs, last accuracy (percent)."""
    rows = pool.train(
        client, "lenet", epochs=MAX_EPOCHS, goal_accuracy=goal, validate_every=1, seed=seed,
        parallelism=PROCESSES, k=K[batch], batch_size=batch,
    ).history()  # fmt: skip
    first, last = rows[0], rows[-1]
    begun_at = first.ended_at - first.validation_s - first.duration_s
    training_s = sum(row.duration_s for row in rows)
    return training_s, last.ended_at - begun_at, len(rows), last.accuracy or 0.0


def ddp(data: Path, batch: int, goal: float, *, seed: int) -> tuple[float, float, float, float]:
    """The same of two processes under DDP."""
    results = race(
        "sgd", data=data, batch=batch, lr=pool.LR, epochs=MAX_EPOCHS, goal=goal, seed=seed,
        processes=PROCESSES, is_group=True,
    )  # fmt: skip
    slower = max(results, key=lambda result: result["wall_s"])
    training_s = sum(slower["seconds"])
    return training_s, slower["wall_s"], len(slower["seconds"]), slower["accuracies"][-1]
