"""A stack of the benchmark's own, and the jobs that run on it."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.errors import JobStopped
from kubeml.jobs.results import EpochRow
from kubeml.machine import pinned_gpus
from kubeml.stack import stack
from scripts.benchmarks.ledgers import Round, rounds_of

FUNCTIONS = Path(__file__).parent / "functions"
SUBSET = Path(__file__).parents[1] / "data" / "mnist_subset.npz"

#: Rows of MNIST's training set.
FULL_ROWS = 60_000

#: The files of the functions that train LeNet, plainly and with its rounds noted.
LENET = ("network", "model", "lenet")
TIMED = ("network", "model", "stamping", "timed")

#: The dataset and the learning rate of every job on digits.
DATASET, LR = "digits", 0.01


@contextmanager
def embedded_stack(
    *,
    workers: int = 2,
    device: str = "cpu",
    slots_per_gpu: int = 1,
    lease_s: float | None = None,
) -> Iterator[Client]:
    """What ``kubeml up`` starts, in a temporary home; stopped and removed afterwards.

    On GPUs there is a worker for each slot of each of them, whatever ``workers`` says.
    """
    for name in list(os.environ):
        if name.startswith(("KUBEML_", "AWS_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="kubeml-bench-") as folder:
        home = Path(folder)
        os.environ["KUBEML_HOME"] = folder
        wanted = {"home": home, "device": device, "slots_per_gpu": slots_per_gpu}
        settings = Settings.load(wanted)
        gpus = pinned_gpus(settings, os.environ)
        stack.up(settings, workers=len(gpus) or workers, gpus=gpus)
        try:
            with Client(Settings.load({"home": home, "lease_s": lease_s})) as client:
                yield client
        finally:
            stack.down(Settings.load({"home": home}))


class Digits(NamedTuple):
    """The dataset ``digits``: what it is, for people; the same as a file; how many test rows."""

    source: str
    file: Path
    num_test: int


def put_digits(client: Client, options: argparse.Namespace, *, throughput: bool = False) -> Digits:
    """Upload the digits, and write them where contestants in other processes find them.

    Args:
        client: Where.
        options: ``--mnist``, an .npz of ``x_train``, ``y_train``, ``x_test``, ``y_test``; else the
            digits that ship with kubeml.
        throughput: Nothing else counts: as many training rows as MNIST has, repeated if need be.
    """
    path = options.mnist
    with np.load(path or SUBSET, allow_pickle=False) as arrays:
        x, y, x_test, y_test = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    source = f"MNIST, {len(x):,} rows" if path else f"{len(x):,} MNIST digits that ship with kubeml"
    rows = (10_000 if options.quick else FULL_ROWS) if throughput else len(x)
    if rows != len(x):
        source += f", {'repeated' if rows > len(x) else 'cut'} to {rows:,} rows (throughput alone)"
        where = np.resize(np.arange(len(x)), rows)
        x, y = x[where], y[where]
    client.datasets.create(
        DATASET, train_data=x, train_labels=y, test_data=x_test, test_labels=y_test
    )
    file = client.settings.home / "digits.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return Digits(source, file, len(x_test))


def put_rows(client: Client, train: int, test: int) -> None:
    """The same dataset of rows that nobody looks at."""
    rows = np.zeros((train, 1), np.uint8)
    client.datasets.create(
        DATASET, train_data=rows, train_labels=rows[:, 0], test_data=rows[:test],
        test_labels=rows[:test, 0],
    )  # fmt: skip


def put_function(client: Client, name: str, *files: str, constants: str = "") -> None:
    """Create or replace a function of files from ``functions/``.

    Args:
        client: Where.
        name: Its name.
        files: Modules; one of them defines ``main``.
        constants: Text of a further module ``constants``; another text makes it another function.
    """
    with tempfile.TemporaryDirectory(prefix="kubeml-bench-") as folder:
        for file in files:
            shutil.copy(FUNCTIONS / f"{file}.py", folder)
        (Path(folder) / "constants.py").write_text(constants, "utf-8")
        there = name in [info.name for info in client.functions.list()]
        client.functions.create(name, Path(folder), check=False, replace=there)


def train(client: Client, function: str, **options: Any) -> Job:
    """Run a job of fixed parallelism to its end; validated after the last epoch alone."""
    job = submit(client, function, **options)
    job.wait()
    return job


def submit(client: Client, function: str, *, dataset: str = DATASET, **options: Any) -> Job:
    """Submit such a job."""
    defaults = {"lr": LR, "static": True, "validate_every": 0, "optimizer_state": "carry"}
    return client.train(function, dataset, **{**defaults, **options})


def stop(job: Job) -> None:
    """Stop a job whose beginning alone was of interest."""
    job.stop()
    with suppress(JobStopped):
        job.wait()


def processes(client: Client, role: str = "") -> list[psutil.Process]:
    """The stack's processes with their children; of one role, if asked for."""
    leaders = [
        psutil.Process(info.pid)
        for info in stack.status(client.settings).processes
        if not role or info.role == role
    ]
    family = [p for leader in leaders for p in (leader, *leader.children(recursive=True))]
    # Once each: the supervisor's children are leaders themselves.
    return list({process.pid: process for process in family}.values())


def rounds(client: Client, job: Job) -> list[Round]:
    """The rounds of a job's finished epochs."""
    ledgers = [client.backends.records.ledger(job.id, row.epoch) for row in job.history()]
    return rounds_of([ledger for ledger in ledgers if ledger is not None])


def steady_rate(rows: Sequence[EpochRow]) -> float:
    """Samples per second of training, without the first epoch; see ``EpochRow.duration_s``."""
    later = rows[1:]
    return sum(row.samples for row in later) / sum(row.duration_s for row in later)


def through_rate(rows: Sequence[EpochRow]) -> float:
    """Samples per second by the wall clock, from the end of the first epoch to the last but one.

    Checkpoints, history and planning between the epochs count; validation is due after the last.
    """
    first, *middle, _ = rows
    return sum(row.samples for row in middle) / (middle[-1].ended_at - first.ended_at)
