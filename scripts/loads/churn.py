"""Workers that come, go and die every few seconds while jobs run: nothing is lost."""

import argparse
import random
import time
from dataclasses import dataclass, field

from kubeml.client.client import Client
from scripts.benchmarks.workers import Workers
from scripts.loads.arrivals import QUICK_MINUTES, draw_arrivals, play
from scripts.loads.pictures import draw_pool
from scripts.loads.report import LoadReport
from scripts.loads.verdicts import References, judge_all, wait_for_all

#: Seconds between two changes, at least and at most, and the most workers besides the stack's.
EVERY_S = (2.0, 5.0)
MOST = 3

COUNTED = (
    f"every {EVERY_S[0]:g} to {EVERY_S[1]:g} s a worker is started (up to {MOST} besides the two of"
    " the stack), told to go (SIGTERM) or killed (SIGKILL); the seed fixes the draw",
    "jobs arrive as in the load `arrivals`; workers come and go until the last job has ended",
    "again: slots that were trained again; workers: all that had a part in a job",
)


@dataclass
class Churn:
    """Changes the workers now and then.

    Attributes:
        workers: Those that come and go.
        rng: Draws what is done.
        base: Workers besides them.
        started, terminated, killed: How many there were.
        there: When (Unix seconds) the number of workers became how large.
    """

    workers: Workers
    rng: random.Random
    base: int
    started: int = 0
    terminated: int = 0
    killed: int = 0
    there: list[tuple[float, int]] = field(default_factory=list)
    _bag: list[str] = field(default_factory=list)
    _next_at: float = 0.0

    def act(self) -> None:
        """Change something, if it is time to."""
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + self.rng.uniform(*EVERY_S)
        names = self.workers.names
        if not names or (len(names) < MOST and self.rng.random() < 0.5):
            self.workers.start()
            self.started += 1
        else:
            self._send_away(self.rng.choice(names))
        self.there.append((time.time(), self.base + len(self.workers.names)))

    def _send_away(self, name: str) -> None:
        # As often in the one way as in the other, in random order.
        self._bag = self._bag or self.rng.sample(["SIGTERM", "SIGKILL"], 2)
        if self._bag.pop() == "SIGKILL":
            self.workers.kill(name)
            self.killed += 1
        else:
            self.workers.terminate(name)
            self.terminated += 1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="for which jobs arrive")


def run(client: Client, options: argparse.Namespace, references: References) -> LoadReport:
    """Jobs arrive, workers come and go until all jobs have ended."""
    for_s = 60 * (options.minutes or (QUICK_MINUTES if options.quick else 5.0))
    rng = random.Random(options.seed)  # noqa: S311 - no secret
    plan = draw_arrivals(options.seed, for_s=for_s, quick=options.quick)
    workers = Workers(client)
    churn = Churn(workers=workers, rng=rng, base=options.workers)
    try:
        jobs = play(client, plan, churn.act, until_ended=True)
    finally:
        workers.retire()
    faults = []
    if not wait_for_all(client, jobs, within_s=60):
        faults.append("not all jobs ended in the time given to them")
    outcomes = judge_all(client, jobs, references)
    traces = [outcome.trace for outcome in outcomes if outcome.trace]
    return LoadReport(
        name="churn", counted=COUNTED, jobs=outcomes, faults=faults,
        facts={
            "churn": f"{len(jobs)} jobs in {for_s:.0f} s, seed {options.seed}; {churn.started}"
            f" workers came, {churn.terminated} were told to go, {churn.killed} killed"
        },
        draw=lambda figure: draw_pool(figure, traces, churn.there),
    )  # fmt: skip
