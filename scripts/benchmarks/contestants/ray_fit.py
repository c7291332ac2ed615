"""LeNet with Ray Train on two workers, run by a Python that has Ray (and not kubeml).

Reports the seconds of ``ray.init``, and those of each ``fit`` that follows it in the same cluster.
"""

import os
import tempfile
import time

import numpy as np
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

from scripts.benchmarks.functions import network as net
from scripts.benchmarks.race import get_ready, given, report


def main() -> None:
    options = given()
    # It neither reports its use nor leaves a token in the home directory.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    fit_s = []
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        get_ready()
        started = time.perf_counter()
        # More than enough CPUs by name: a trainer's own actor must not wait for a worker's.
        ray.init(
            num_cpus=options.world + 2, include_dashboard=False, log_to_driver=False,
            _temp_dir=folder,
        )  # fmt: skip
        init_s = time.perf_counter() - started
        for _ in range(options.fits):
            started = time.perf_counter()
            TorchTrainer(
                train_digits,
                train_loop_config=vars(options),
                scaling_config=ScalingConfig(num_workers=options.world),
                run_config=RunConfig(storage_path=f"{folder}/results"),
            ).fit()
            fit_s.append(time.perf_counter() - started)
        ray.shutdown()
    report(init_s=init_s, fit_s=fit_s, version=ray.__version__)


def train_digits(config: dict) -> None:
    """One worker's part."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    with np.load(config["data"], allow_pickle=False) as arrays:
        train, test = ((arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    network = net.LeNet()
    net.initialise(network)
    network = prepare_model(network)
    optimizer = net.make_optimizer(network.parameters(), config["lr"])
    for epoch in range(1, config["epochs"] + 1):
        order = np.random.default_rng(epoch).permutation(len(train[0]))
        rows = order[rank::world][: len(order) // world]
        for low in range(0, len(rows), config["batch"]):
            loss = net.step(
                network, optimizer, net.gather(*train, rows[low : low + config["batch"]])
            )
        ray.train.report({"loss": loss})
    with torch.no_grad():
        rows = np.arange(rank, len(test[0]), world)
        for low in range(0, len(rows), config["batch"]):
            net.num_correct(network, net.gather(*test, rows[low : low + config["batch"]]))


if __name__ == "__main__":
    main()
