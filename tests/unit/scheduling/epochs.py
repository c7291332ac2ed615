"""Epochs of a job whose costs are known, as its history would have them."""

import json
from dataclasses import dataclass
from math import ceil, exp
from pathlib import Path

import numpy as np

from kubeml.jobs.results import EpochRow


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What a job's epochs cost in truth, and what its samples are worth.

    Attributes:
        num_rows, batch_size, k: The job.
        work_s: Per sample.
        crowding: How much longer a sample takes with each further worker, as a part.
        overhead_s: Per slot and round.
        merge_s, merge_slot_s: Per round, and per slot of a round.
        noise_scale: phi; samples.
        jitter: Times are off by so much, as a part (standard deviation).
    """

    num_rows: int = 60_000
    batch_size: int = 32
    k: int = 8
    work_s: float = 0.001
    crowding: float = 0.0
    overhead_s: float = 0.01
    merge_s: float = 0.005
    merge_slot_s: float = 0.002
    noise_scale: float = 4096.0
    jitter: float = 0.0


def make_epoch(
    epoch: int,
    *,
    slots: int,
    workers: int,
    truth: Truth | None = None,
    before: EpochRow | None = None,
    loading_s: float = 0.0,
) -> EpochRow:
    """The row of an epoch; its loss falls from the one before, by what its samples are worth.

    Args:
        epoch, slots, workers: Which, with what N and W.
        truth: The costs.
        before: The row before it.
        loading_s: What each worker takes to begin.
    """
    truth = truth or Truth()
    random = np.random.default_rng([epoch, slots, workers])
    off = max(0.3, 1 + truth.jitter * random.normal())
    served = min(slots, workers)
    largest = ceil(truth.num_rows / slots)
    rounds = 1 if truth.k == -1 else ceil(largest / (truth.k * truth.batch_size))
    waves = ceil(slots / workers)
    per_sample = truth.work_s * (1 + truth.crowding * (served - 1)) * off
    compute = truth.num_rows / slots * per_sample
    overhead = rounds * truth.overhead_s * off
    merge = rounds * (truth.merge_s + truth.merge_slot_s * slots) * off
    # Of the waves after the first, the mean slot waits for some before and for some after it.
    waiting = (waves - 1) * (compute + overhead)
    phases = {
        "queue": waiting / 2, "failed": 0.0, "fetch": overhead * 0.4, "data": compute * 0.2,
        "compute": compute * 0.8, "push": overhead * 0.4, "other": overhead * 0.2 + loading_s,
        "wait": waiting / 2, "merge": merge, "ahead": 0.0,
    }  # fmt: skip
    duration_s = sum(phases.values())
    worth = truth.noise_scale / (truth.noise_scale + slots * truth.batch_size)
    progress = 0.5 * worth * exp(-0.05 * epoch) * max(0.2, 1 + truth.jitter * random.normal())
    last = before.train_loss if before and before.train_loss else 2.3
    return EpochRow(
        epoch=epoch, parallelism=slots, num_workers=served, rounds=rounds,
        steps=slots * ceil(largest / truth.batch_size), samples=truth.num_rows,
        train_loss=last * exp(-progress),
        val_loss=None, accuracy=None, duration_s=duration_s, validation_s=1.0, retries=0,
        decision="", weights_sha256="",
        ended_at=(before.ended_at if before else 0.0) + duration_s + 1.0,
        mean_workers=float(served), phases=phases,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A job as it was recorded: on two CPU cores that other processes used too, real workers."""

    name: str
    batch_size: int
    k: int
    workers: int
    num_rows: int
    rows: list[EpochRow]


def _traces() -> list[Trace]:
    recorded = json.loads((Path(__file__).parent / "traces" / "epochs.json").read_text())
    return [
        Trace(
            name=name.replace(" ", "-"), batch_size=job["batch_size"], k=job["k"],
            workers=job["workers"], num_rows=job["num_rows"],
            rows=[EpochRow.from_wire(row) for row in job["rows"]],
        )
        for name, job in recorded.items()
    ]  # fmt: skip


TRACES = _traces()
