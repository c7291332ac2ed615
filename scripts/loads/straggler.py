"""One worker of four takes five times as long: what idle workers do about it, to the same bits."""

import argparse

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.paced import ROWS, SLOW_TIMES, SLOW_WORKER, STEP_S
from scripts.benchmarks.report import series
from scripts.benchmarks.workers import Workers
from scripts.loads.pictures import draw_rounds
from scripts.loads.report import LoadReport
from scripts.loads.shapes import Shape, submit
from scripts.loads.verdicts import References, Submitted, judge_all, wait_for_all

SLOTS, BATCH = 4, 6

#: Steps of a round: 1 s of a usual worker's time.
K = 50
SHAPE = Shape(name=f"N={SLOTS} K={K}", parallelism=SLOTS, options={"k": K, "batch_size": BATCH})

#: So many rounds make an epoch.
ROUNDS = -(-ROWS // (SLOTS * K * BATCH))

COUNTED = (
    f"N={SLOTS} on {SLOTS} workers, a slot's round being {K} steps of {1000 * STEP_S:.0f} ms; the"
    f" slow worker takes {SLOW_TIMES} times as long for each step, which weights do not depend on",
    "round: from its opening to its merge, by the state server's clock; rounds in which the slow"
    " worker had no slot from the beginning count like all others",
    "hedged: an idle worker trains a copy of the slowest slot, and the first to hand in counts",
)


def run(client: Client, options: argparse.Namespace, references: References) -> LoadReport:
    """The same job without a slow worker, with one, and with one and hedging."""
    epochs = 1 if options.quick else 8
    workers = Workers(client)
    jobs: dict[str, Submitted] = {}
    try:
        usual = [workers.start() for _ in range(SLOTS - options.workers)]
        workers.wait_for(*usual)
        jobs["none is slow"] = _train(client, epochs, hedge=False)
        references.note(SHAPE, jobs["none is slow"].job)
        # In the place of a usual one.
        workers.retire(usual[-1])
        workers.start(SLOW_WORKER)
        workers.wait_for(SLOW_WORKER)
        jobs["one is slow"] = _train(client, epochs, hedge=False)
        jobs["one is slow, hedged"] = _train(client, epochs, hedge=True)
    finally:
        workers.retire()
    walls = {
        label: [round_.wall_s for round_ in pool.rounds(client, submitted.job)]
        for label, submitted in jobs.items()
    }
    return LoadReport(
        name="straggler", counted=COUNTED,
        jobs=judge_all(client, list(jobs.values()), references),
        series=[series(f"round, {label}", "s", v) for label, v in walls.items()],
        facts={"job": f"{epochs} epochs of {ROUNDS} rounds"},
        draw=lambda figure: draw_rounds(figure, walls),
    )  # fmt: skip


def _train(client: Client, epochs: int, *, hedge: bool) -> Submitted:
    submitted = Submitted(job=submit(client, SHAPE, epochs=epochs, hedge=hedge), shape=SHAPE)
    wait_for_all(client, [submitted], within_s=600)
    return submitted
