"""The soak: jobs under chaos for so many minutes, with memory, keys, objects and files watched.

Exit code 1 if something grows, or if something is left that will never go away.
"""

import argparse
import statistics
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from brokers.rounds.index import ended_jobs, live_jobs
from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.errors import KubemlError
from kubeml.ops.chaos.run import ROLES, ChaosPlan, run_chaos
from kubeml.stack import stack
from scripts.benchmarks.pool import embedded_stack

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_EVERY_S = 5.0

#: Jobs whose histories are kept; older ones are deleted, as a team would.
JOBS_KEPT = 3

#: What counts as growth: more than this share, and more than so much (unit of the series).
GROWTH = 1.15
AT_LEAST = {"MiB": 30.0, "keys": 50.0, "objects": 40.0, "files": 20.0}

#: Jobs of some 10 s, so that a run has many.
OPTIONS = {
    "epochs": 3, "batch_size": 32, "lr": 0.01, "parallelism": 2, "k": 16, "static": True,
    "optimizer_state": "carry", "seed": 0,
}  # fmt: skip


class Watch(threading.Thread):
    """Samples the stack's size every few seconds, and deletes old histories."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self._stopped = threading.Event()
        self.series: dict[tuple[str, str], list[float]] = defaultdict(list)

    def run(self) -> None:
        """Sample until stopped; what does not answer is sampled the next time."""
        while not self._stopped.wait(SAMPLE_EVERY_S):
            with suppress(KubemlError, psutil.Error):
                self._sample()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()

    def _sample(self) -> None:
        for info in stack.status(self._settings).processes:
            # Those that were killed lately are still growing to their usual size.
            if info.pid and info.state == "running" and time.time() - info.started_at > 20:
                family = [psutil.Process(info.pid)]
                if info.role != "supervisor":
                    family += family[0].children(recursive=True)
                memory = sum(p.memory_info().rss for p in family) / 2**20
                self.series[f"memory of {info.role}", "MiB"].append(memory)
                self.series[f"files of {info.role}", "files"].append(
                    sum(p.num_fds() for p in family)
                )
        with Client(self._settings) as client:
            prune(client)
            self.series["keys on Redis", "keys"].append(client.backends.redis.dbsize())
            used = client.backends.redis.info("memory")["used_memory"]
            self.series["memory used by Redis", "MiB"].append(used / 2**20)
            self.series["objects on S3", "objects"].append(
                sum(1 for _ in client.backends.objects.list(""))
            )


def prune(client: Client) -> None:
    """Delete all histories but the last few."""
    ended = [status for status in client.histories() if status.state.is_final]
    for status in ended[JOBS_KEPT:]:
        client.delete_history(status.id)


def growth(series: dict[tuple[str, str], list[float]]) -> list[tuple[str, str, float, float, bool]]:
    """(what, unit, median of the second third, of the last third, whether it grows).

    The first third is left out: caches fill, and the first jobs are not deleted yet.
    """
    rows = []
    for (what, unit), values in sorted(series.items()):
        third = max(1, len(values) // 3)
        early = statistics.median(values[third : 2 * third] or values)
        late = statistics.median(values[-third:])
        grows = late > early * GROWTH and late - early > AT_LEAST[unit]
        rows.append((what, unit, early, late, grows))
    return rows


def leaks(client: Client) -> list[str]:
    """What will never go away by itself, although nobody needs it."""
    found = []
    known = {*live_jobs(client.backends.redis), *ended_jobs(client.backends.redis)}
    for key in client.backends.redis.scan_iter("kml:*", count=1000):
        job = key.decode().split("}")[0].removeprefix("kml:{")
        if job not in known and client.backends.redis.ttl(key) == -1:
            found.append(f"Redis key {key.decode()} of no job, without a TTL")
    jobs = set(client.backends.records.all_ids())
    ended = {job for job in jobs if client.backends.records.end(job) is not None}
    found += [f"active/{job} of a job that has ended" for job in client.backends.records.active()
              if job in ended]  # fmt: skip
    for folder in ("checkpoints/", "history/"):
        found += [f"{folder}{job} of no job" for job in client.backends.objects.list_names(folder)
                  if job not in jobs]  # fmt: skip
    for job in ended:
        found += unreferenced(client, job)
    return found


def unreferenced(client: Client, job: str) -> list[str]:
    """Checkpoint objects of an ended job that none of its manifests refers to."""
    used = set()
    for info in client.backends.objects.list(f"checkpoints/{job}/"):
        if info.key.endswith(".json"):
            used |= client.backends.checkpoints.read(info.key).keys
    return [
        f"{info.key} that no checkpoint refers to"
        for info in client.backends.objects.list(f"checkpoints/{job}/objects/")
        if info.key not in used
    ]


def put_work(client: Client) -> None:
    """The digits and the network that are trained."""
    with np.load(ROOT / "scripts/data/mnist_subset.npz", allow_pickle=False) as arrays:
        client.datasets.create(
            "mnist",
            train_data=arrays["x_train"], train_labels=arrays["y_train"],
            test_data=arrays["x_test"], test_labels=arrays["y_test"],
        )  # fmt: skip
    client.functions.create("lenet", ROOT / "scripts/examples/lenet/lenet.py", check=False)


def main() -> int:
    """Run the soak and return its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between kills")
    options = parser.parse_args()
    with embedded_stack(workers=2) as client:
        put_work(client)
        return soak(client.settings, options)


def soak(settings: Settings, options: argparse.Namespace) -> int:
    """Train under chaos, then look at what has grown and what is left."""
    watch = Watch(settings)
    watch.start()
    plan = ChaosPlan(
        function="lenet", dataset="mnist", options=OPTIONS, kinds=tuple(ROLES),
        every_s=options.every, for_s=options.minutes * 60, seed=0,
    )  # fmt: skip
    try:
        report = run_chaos(settings, plan, lambda text: print(text, file=sys.stderr))
    finally:
        watch.stop()
    rows = growth(watch.series)
    print(f"{'':<28}{'second third':>14}{'last third':>14}")
    for what, unit, early, late, grows in rows:
        print(f"{what:<28}{early:>14,.0f}{late:>14,.0f} {unit:<8}{'GROWS' if grows else ''}")
    with Client(settings) as client:
        left = leaks(client)
    for line in [*report.faults, *left]:
        print(f"error: {line}", file=sys.stderr)
    print(
        f"{len(report.runs)} jobs, {len(report.kills)} kills, "
        f"{sum(row[4] for row in rows)} series grow, {len(left)} orphans"
    )
    return 1 if report.faults or left or any(row[4] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
