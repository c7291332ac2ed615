"""Jobs of different weights, submitted at once to two workers: each gets its share."""

import argparse

from kubeml.fair_share import TURN_MS

from kubeml.client import Client
from scripts.loads.pictures import draw_crowd
from scripts.loads.report import TOLERANCE, LoadReport, ShareRow
from scripts.loads.shapes import PLAIN, submit
from scripts.loads.traces import Trace, crowded, shares, shares_by_weight
from scripts.loads.verdicts import References, Submitted, judge, wait_for_all

#: The weights of the jobs, in turn.
WEIGHTS, QUICK_WEIGHTS = (1, 2, 3, 4), (1, 2, 3)

#: Epochs for each unit of weight: all jobs have work for as long, if each gets its share.
EPOCHS, QUICK_EPOCHS = 6, 1

COUNTED = (
    "worker time of a job: from taking each slot to handing it in, by the state server's clock, from"
    " the ledgers; shares count from when every job had begun until the first had no more work",
    f"fair: within {TOLERANCE:.0%} of its due; a single job also within one turn"
    f" ({TURN_MS / 1000:g} s and a slot), since workers are whole and slots are not interrupted",
    "submission to first slot: until it trains, with the making of its weights and its plan;"
    " longest time without a worker: from submission to last merge, between epochs too",
    "same weights: after every epoch those of the same job alone on the idle pool",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=20, help="how many at once")
    parser.add_argument("--epochs", type=int, help="for each unit of a job's weight")


def run(client: Client, options: argparse.Namespace, references: References) -> LoadReport:
    """Submit all at once, wait for all, and look who had which part of the workers."""
    weights = QUICK_WEIGHTS if options.quick else WEIGHTS
    per_weight = options.epochs or (QUICK_EPOCHS if options.quick else EPOCHS)
    jobs = []
    for number in range(options.jobs):
        weight = weights[number % len(weights)]
        job = submit(client, PLAIN, epochs=per_weight * weight, priority=weight)
        jobs.append(Submitted(job=job, shape=PLAIN, weight=weight))
    total = per_weight * sum(s.weight for s in jobs)
    faults = []
    if not wait_for_all(client, jobs, within_s=120 + 6 * total):
        faults.append("not all jobs ended in the time given to them")
    outcomes = [judge(client, submitted, references) for submitted in jobs]
    traces = [outcome.trace for outcome in outcomes if outcome.trace]
    rows = share_rows(traces)
    begin_s, end_s = crowded(traces)
    return LoadReport(
        name="crowd", counted=COUNTED, jobs=outcomes, shares=rows, faults=faults,
        facts={"crowd": f"{len(jobs)} jobs, {total} epochs in all; crowded {end_s - begin_s:.0f} s"},
        draw=lambda figure: draw_crowd(figure, traces, rows),
    )  # fmt: skip


def share_rows(traces: list[Trace]) -> list[ShareRow]:
    """The share of the jobs of each weight, and of each job."""
    found = shares(traces, crowded(traces))
    longest_s = max(h.end_s - h.begin_s for t in traces for h in t.holdings)
    turn_s = TURN_MS / 1000 + longest_s
    together = [
        ShareRow(name=f"all of weight {weight}", share=share, allowed_s=TOLERANCE * share.due_s)
        for weight, share in shares_by_weight(traces, found).items()
    ]
    alone = [
        ShareRow(
            name=f"{t.job_id} ({t.weight})",
            share=found[t.job_id],
            allowed_s=max(TOLERANCE * found[t.job_id].due_s, turn_s),
        )
        for t in sorted(traces, key=lambda t: t.weight)
    ]
    return [*together, *alone]
