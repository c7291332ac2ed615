"""A whole job of two epochs, from submission to its end: kubeml over Ray Train."""

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.race import race
from scripts.benchmarks.report import all_series, publish, ratio, target

BATCH, EPOCHS, WORKERS, K = 16, 2, 2, 64

#: Jobs that Ray runs in the same cluster: the last one is compared.
FITS = 2

COUNTED = (
    "both train LeNet for two epochs on two workers of one thread, batch 16 each, the same step and"
    " data access, and run the test digits through the network once at the end",
    "kubeml: from just before `Client.train()` to the return of `Job.wait()`: queue, loading,"
    " training, checkpoints, history, validation; the stack is up and has served another job",
    f"Ray: `TorchTrainer.fit()` number {FITS} in a cluster that is up, which is the one compared;"
    " also the first `fit()` of the cluster, and the same with `ray.init()` on this machine",
    "Ray's workers read the digits from a local file and keep no checkpoint",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray", default="2.60.0", metavar="VERSION", help="version of ray[train] to install"
    )


def run(options: argparse.Namespace) -> None:
    """Take turns."""
    python = ray_python(options.ray)
    values: dict[str, list[float]] = defaultdict(list)
    with pool.embedded_stack(workers=WORKERS) as client:
        digits = pool.put_digits(client, options, throughput=True)
        pool.put_function(client, "lenet", *pool.LENET)
        kubeml_s(client)
        for _ in range(options.repeat or (1 if options.quick else 5)):
            values["kubeml"].append(kubeml_s(client))
            for name, seconds in ray_s(python, digits.file).items():
                values[name].append(seconds)
    ours, *others = all_series(values, "s").values()
    ratios = [ratio(f"{other['name']} / kubeml", other, ours) for other in others]
    publish(
        options, COUNTED, [ours, *others, *ratios], targets=[target(ratios[0], at_least=4.0)],
        facts={
            "data": digits.source, "other": f"ray {options.ray}, torch {version('torch')}",
            "job": f"LeNet, batch {BATCH}, {EPOCHS} epochs, N={WORKERS}, K={K}",
        },
    )  # fmt: skip


def ray_python(ray_version: str) -> str:
    """The Python of an environment with Ray and the same torch, made unless it is there."""
    folder = Path(__file__).parents[2] / "bench-results" / "ray-env"
    python = folder / "bin" / "python"
    wanted = [
        f"ray[train]=={ray_version}", f"torch=={version('torch').split('+')[0]}",
        f"numpy=={version('numpy')}",
    ]  # fmt: skip
    stamp = folder / "installed"
    if not stamp.exists() or stamp.read_text("utf-8") != repr(wanted):
        print("installing Ray into an environment of its own ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        # -I: it is not to look at the packages of this one.
        subprocess.run([python, "-I", "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.write_text(repr(wanted), "utf-8")
    return str(python)


def kubeml_s(client: Client) -> float:
    """Seconds of a whole job."""
    started = time.perf_counter()
    pool.train(client, "lenet", epochs=EPOCHS, batch_size=BATCH, parallelism=WORKERS, k=K)
    return time.perf_counter() - started


def ray_s(python: str, data: Path) -> dict[str, float]:
    """The same with Ray, in a cluster made for it."""
    (result,) = race(
        "ray_fit", data=data, batch=BATCH, lr=pool.LR, epochs=EPOCHS, fits=FITS, world=WORKERS,
        python=python,
    )  # fmt: skip
    first_s, *_, last_s = result["fit_s"]
    return {
        "Ray, cluster up": last_s,
        "Ray, first job": first_s,
        "Ray, with ray.init": result["init_s"] + first_s,
    }
