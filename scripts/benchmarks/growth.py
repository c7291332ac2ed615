"""How costs grow: of a round with participants, model and jobs; of the history with jobs."""

import argparse
import hashlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubeml.client.client import Client
from kubeml.jobs import summary
from kubeml.jobs.results import EpochRow, JobEnd
from kubeml.jobs.spec import JobSpec, State
from scripts.benchmarks import pool
from scripts.benchmarks.report import fit_power_law, publish, series, target
from scripts.benchmarks.simulated import seconds_per_round

MB = 10**6

#: No curve may be steeper than a straight line; so much is noise.
STEEPEST = 1.1

#: The exponent is that of so many largest sizes: at small ones a fixed cost hides it.
LARGEST = 3

COUNTED = (
    "a round: median time from merge to merge, without the first one; participants are threads of"
    " this process that fetch, send and contribute real bytes by the protocol and train nothing;"
    " scheduler, parameter server, Redis and S3 are a real stack's",
    "participants: N slots with one participant each, a model of 1 MB",
    "model: N=2, float32",
    "jobs: at once, each with N=2 and 1 MB",
    "history: `kubeml history list` (`Client.histories`) with so many finished jobs on record",
    f"exponent: of the power law through the {LARGEST} largest sizes (1 = linear)",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-mb", type=int, default=1000, help="largest model, in MB")
    parser.add_argument("--max-jobs", type=int, default=10_000, help="longest history")


def run(options: argparse.Namespace) -> None:
    """Every size in turn, turn by turn; each size's cost, and each curve's exponent."""
    quick = options.quick
    rounds = 4 if quick else 10

    def round_s(client: Client, *, slots: int = 2, num_bytes: int = MB, jobs: int = 1) -> float:
        """Median seconds of a round."""
        return statistics.median(
            seconds_per_round(client, slots=slots, num_bytes=num_bytes, rounds=rounds, jobs=jobs)
        )

    curves: Mapping[str, tuple[Sequence[int], Callable[[Client, int], float]]] = {
        "participants": (
            (1, 2, 4, 8) if quick else (1, 2, 4, 8, 16, 32, 64),
            lambda client, n: round_s(client, slots=n),
        ),
        "model, MB": (
            capped((1, 2, 4, 8) if quick else (1, 3, 10, 30, 100, 300, 1000), options.max_mb),
            lambda client, mb: round_s(client, num_bytes=mb * MB),
        ),
        "jobs": (
            (1, 2, 4) if quick else (1, 2, 5, 10, 20),
            lambda client, jobs: round_s(client, jobs=jobs),
        ),
        "history": (
            capped((10, 30, 100) if quick else (10, 100, 1000, 10_000), options.max_jobs),
            history_s,
        ),
    }
    measured: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in curves}
    with pool.embedded_stack(workers=0, lease_s=300.0) as client:
        pool.put_rows(client, max(curves["participants"][0]) * (rounds + 10), 2)
        pool.put_function(client, "large", "stamping", "large", constants="NUM_BYTES = 4\n")
        for _ in range(options.repeat or (1 if quick else 3)):
            for name, (sizes, cost_s) in curves.items():
                for size in sizes:
                    measured[name][size].append(1000 * cost_s(client, size))
    rows, exponents = [], []
    for name, costs in measured.items():
        rows += [series(f"{name}: {x:,}", "ms", ys) for x, ys in costs.items()]
        largest = sorted(costs)[-LARGEST:]
        turns = zip(*(costs[size] for size in largest), strict=True)
        steep = [fit_power_law(largest, turn)[0] for turn in turns]
        exponents.append(series(f"{name}: exponent", "exponent", steep))
    publish(
        options, COUNTED, [*rows, *exponents], draw=lambda figure: draw(figure, measured),
        targets=[target(exponent, at_most=STEEPEST) for exponent in exponents],
    )  # fmt: skip


def capped(sizes: Sequence[int], most: int) -> Sequence[int]:
    """The sizes up to ``most``, but two at least."""
    return [size for index, size in enumerate(sizes) if size <= most or index < 2]


def history_s(client: Client, count: int) -> float:
    """Seconds of listing so many finished jobs, whose records are written first."""
    for prefix in ("jobs/", "history/", summary.ROOT):
        client.backends.objects.delete_prefix(prefix)
    # As `history prune` does, which takes longer: no empty folder is left to look like a job.
    client.backends.objects.delete(
        [f"jobs/{job_id}/" for job_id in client.backends.records.all_ids()]
    )
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: record_finished(client, f"past-{number}"), range(count)))
    started = time.perf_counter()
    listed = client.histories()
    seconds = time.perf_counter() - started
    if len(listed) != count:
        raise RuntimeError(f"{len(listed)} jobs are listed, expected {count}")
    return seconds


def some_sha256(text: str) -> str:
    """A hash as long as the real ones: records of zeros would be smaller than any job's."""
    return hashlib.sha256(text.encode()).hexdigest()


def record_finished(client: Client, job_id: str) -> None:
    """Write what a job of one epoch leaves behind."""
    spec = JobSpec(
        id=job_id, function="large", function_sha256=some_sha256("large"), entry="large.py",
        dataset=pool.DATASET, dataset_version="v", epochs=1, batch_size=16, lr=0.01,
    )  # fmt: skip
    row = EpochRow(
        epoch=1, parallelism=2, num_workers=2, rounds=1, steps=2, samples=32, train_loss=1.0,
        val_loss=1.0, accuracy=50.0, duration_s=1.0, validation_s=0.1, retries=0, decision="",
        weights_sha256=some_sha256(job_id), ended_at=1.0,
    )  # fmt: skip
    end = JobEnd(
        state=State.DONE, reason="", epoch=1, checkpoint="", weights_sha256=some_sha256(job_id),
        accuracy=50.0, train_loss=1.0, val_loss=1.0, elapsed_s=1.0, ended_at=1.0,
    )  # fmt: skip
    client.backends.objects.put_json(f"jobs/{job_id}/spec.json", spec.to_wire())
    client.backends.objects.put_json(f"history/{job_id}/000001.json", row.to_wire())
    client.backends.objects.put_json(f"jobs/{job_id}/end.json", end.to_wire())
    client.backends.objects.put(summary.to_key(summary.ended_status(spec, end, row), life=0), b"")


def draw(figure: Any, measured: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """Every curve on logarithmic axes, with the line through its largest sizes."""
    for axes, (name, costs) in zip(figure.subplots(2, 2).flat, measured.items(), strict=True):
        xs = sorted(costs)
        medians = [statistics.median(costs[x]) for x in xs]
        exponent, factor = fit_power_law(xs[-LARGEST:], medians[-LARGEST:])
        axes.loglog(xs, medians, "o", color="tab:blue")
        axes.loglog(xs, [factor * x**exponent for x in xs], "--", color="grey", linewidth=0.8)
        axes.set_title(f"{name}: exponent {exponent:.2f}", fontsize=9)
        axes.set_ylabel("ms")
