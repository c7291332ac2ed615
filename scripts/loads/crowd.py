"""Jobs of different weights, submitted at once to two workers: each gets its share."""

import argparse

from kubeml.client.client import Client
from kubeml.jobs.spec import State
from scripts.loads.pictures import draw_crowd
from scripts.loads.report import TOLERANCE, LoadReport, ShareRow
from scripts.loads.shapes import PLAIN, submit
from scripts.loads.traces import Trace, crowded, shares, shares_by_weight
from scripts.loads.verdicts import References, Submitted, judge_all, wait_for_all

#: How many jobs, and their weights, in turn.
JOBS, QUICK_JOBS = 20, 5
WEIGHTS = (1, 2, 3)

#: Epochs for each unit of weight: all jobs have work for as long, if each gets its share.
EPOCHS, QUICK_EPOCHS = 12, 2

#: For how long a worker serves a job while others wait: `kubeml.pool.fair_share.TURN_MS`, what
#: passes until that is noticed, and the slot in hand.
TURN_S = 4.0

COUNTED = (
    "worker time of a job: from taking each slot to handing it in, by the state server's clock,"
    " from the ledgers; they count from the last submission until the first job had no more work",
    f"fair: within {TOLERANCE:.0%} of its due, or within one turn ({TURN_S:g} s), since workers are"
    " whole and slots are not interrupted; shown but not judged with --quick",
    "submission to first slot: until it trains, with the making of its weights and its plan;"
    " longest time without a worker: from submission to last merge, between epochs too",
    "same weights: after every epoch those of the same job alone on the idle pool",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="how many at once")
    parser.add_argument("--epochs", type=int, help="for each unit of a job's weight")


def run(client: Client, options: argparse.Namespace, references: References) -> LoadReport:
    """Submit all at once, wait for all, and look who had which part of the workers."""
    per_weight = options.epochs or (QUICK_EPOCHS if options.quick else EPOCHS)
    jobs = []
    for number in range(options.jobs or (QUICK_JOBS if options.quick else JOBS)):
        weight = WEIGHTS[number % len(WEIGHTS)]
        job = submit(client, PLAIN, epochs=per_weight * weight, priority=weight)
        jobs.append(Submitted(job=job, shape=PLAIN, weight=weight))
    total = per_weight * sum(s.weight for s in jobs)
    faults = []
    if not wait_for_all(client, jobs, within_s=120 + 6 * total):
        faults.append("not all jobs ended in the time given to them")
    outcomes = judge_all(client, jobs, references)
    traces = [outcome.trace for outcome in outcomes if outcome.trace]
    # If one has not got through, there is no telling for how long all of them were there.
    all_done = all(outcome.state == State.DONE for outcome in outcomes)
    rows = share_rows(traces) if all_done else []
    return LoadReport(
        name="crowd", counted=COUNTED, jobs=outcomes, shares=rows, faults=faults,
        judges_shares=not options.quick,
        facts={"crowd": f"{len(jobs)} jobs, {total} epochs in all"},
        draw=lambda figure: draw_crowd(figure, traces, rows),
    )  # fmt: skip


def share_rows(traces: list[Trace]) -> list[ShareRow]:
    """The share of the jobs of each weight, and of each job."""
    found = shares(traces, crowded(traces))
    named = {
        f"all of weight {weight}": share
        for weight, share in shares_by_weight(traces, found).items()
    }
    by_weight = sorted(traces, key=lambda t: t.weight)
    named |= {f"{t.job_id} ({t.weight})": found[t.job_id] for t in by_weight}
    return [
        ShareRow(name=name, share=share, allowed_s=max(TOLERANCE * share.due_s, TURN_S))
        for name, share in named.items()
    ]
