"""Jobs of all shapes that arrive at random: all end, counted once, with the right weights."""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from kubeml.client.client import Client
from scripts.benchmarks.paced import ROWS, STEP_S
from scripts.loads.pictures import draw_pool
from scripts.loads.report import LoadReport
from scripts.loads.shapes import BATCH, ELASTIC, STATIC, Shape, submit
from scripts.loads.verdicts import References, Submitted, judge_all, unended, wait_for_all

WEIGHTS = (1, 2, 4)
QUICK_MINUTES = 1 / 3

#: How much of two workers' time is asked for, on average: queues form and go.
LOAD = 0.7

#: Of so many shapes alone, in quick runs: each is trained alone as well.
QUICK_SHAPES = 2

COUNTED = (
    f"jobs arrive as a Poisson process that asks for {LOAD:.0%} of the time of two workers, with"
    " shapes and weights drawn at random; the seed fixes all of it",
    "submission to first slot: until it trains, with the making of its weights and its plan;"
    " longest time without a worker: from submission to last merge, between epochs too",
    "same weights: after every epoch those of the same job alone on the calm pool; elastic jobs"
    " choose N by how long epochs take, so that theirs are not known beforehand",
)


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A job that is to come: when (seconds from the beginning), and what it is."""

    at_s: float
    shape: Shape
    epochs: int
    weight: int


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="for which jobs arrive")


def run(client: Client, options: argparse.Namespace, references: References) -> LoadReport:
    """Submit each job when it is due, and wait for all."""
    for_s = 60 * (options.minutes or (QUICK_MINUTES if options.quick else 10.0))
    plan = draw_arrivals(options.seed, for_s=for_s, quick=options.quick)
    jobs = play(client, plan)
    faults = []
    if not wait_for_all(client, jobs, within_s=120 + for_s):
        faults.append("not all jobs ended in the time given to them")
    outcomes = judge_all(client, jobs, references)
    traces = [outcome.trace for outcome in outcomes if outcome.trace]
    return LoadReport(
        name="arrivals", counted=COUNTED, jobs=outcomes, faults=faults,
        facts={"arrivals": f"{len(jobs)} jobs in {for_s:.0f} s, seed {options.seed}"},
        draw=lambda figure: draw_pool(figure, traces),
    )  # fmt: skip


def draw_arrivals(seed: int, *, for_s: float, quick: bool) -> list[Arrival]:
    """When which jobs come; three at least.

    Args:
        seed: The same one draws the same.
        for_s: How long they come.
        quick: Fewer shapes, fewer epochs.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    static = STATIC[:QUICK_SHAPES] if quick else STATIC
    most_epochs = 2 if quick else 5
    epoch_s = 2 / 3 * fmean(map(work_s, static)) + 1 / 3 * fmean(map(work_s, ELASTIC))
    mean_s = epoch_s * (1 + most_epochs) / 2
    found: list[Arrival] = []
    at_s = 0.0
    while at_s < for_s or len(found) < 3:
        shape = rng.choice(static if rng.random() < 2 / 3 else ELASTIC)
        epochs, weight = rng.randint(1, most_epochs), rng.choice(WEIGHTS)
        found.append(Arrival(at_s=at_s, shape=shape, epochs=epochs, weight=weight))
        at_s += rng.expovariate(2 * LOAD / mean_s)
    return found


def work_s(shape: Shape) -> float:
    """Seconds of a worker's time for an epoch: N does not matter, near enough."""
    return ROWS / int(shape.options.get("batch_size", BATCH)) * STEP_S


def play(
    client: Client,
    plan: Sequence[Arrival],
    meanwhile: Callable[[], None] = lambda: None,
    *,
    until_ended: bool = False,
) -> list[Submitted]:
    """Submit each job when it is due.

    Args:
        client: Where.
        plan: The jobs, in order.
        meanwhile: Called several times a second.
        until_ended: Whether to go on calling it until all jobs have ended, or ten minutes.
    """
    jobs: list[Submitted] = []
    started = looked = time.monotonic()
    left = list(plan)
    while True:
        now = time.monotonic()
        if left and now - started >= left[0].at_s:
            due = left.pop(0)
            job = submit(client, due.shape, epochs=due.epochs, priority=due.weight)
            jobs.append(Submitted(job=job, shape=due.shape, weight=due.weight))
            continue
        if not left and not until_ended:
            return jobs
        if not left and now - looked > 0.5:
            looked = now
            if not unended(client, jobs) or now - started > plan[-1].at_s + 600:
                return jobs
        meanwhile()
        time.sleep(0.05)
