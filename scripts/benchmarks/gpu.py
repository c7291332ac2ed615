"""Throughput on one GPU: kubeml with 1, 2 and 4 slots over plain PyTorch and DDP, one card."""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from kubeml.client.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.race import race
from scripts.benchmarks.report import all_series, publish, ratio

#: Network to its files as a kubeml function, batch, and K.
NETWORKS = {
    "lenet": (pool.LENET, 128, 64),
    "resnet18": (("network", "model", "resnet", "residual"), 128, 16),
}

#: Slots of kubeml's jobs; the stack has a worker on the card for each of the most of them.
SLOTS = (1, 2, 4)

#: DDP's contestants: name to processes and backend.
DDP = {"DDP x 1, NCCL": (1, "nccl"), "DDP x 2, gloo": (2, "gloo")}

COUNTED = (
    "rows of an epoch over its training time, without the first epoch: plain and DDP from its"
    " first batch to its last, kubeml `duration_s` of the history rows, with all merges",
    "all on the first card: plain is one process; kubeml N=2 and N=4 are two and four workers that"
    f" share the card (`kubeml up --device gpu --slots-per-gpu {max(SLOTS)}`, all {max(SLOTS)} up"
    " all the time)",
    "NCCL refuses two processes on a card: DDP x 1 shows what DDP itself costs, DDP x 2 is two"
    " processes that share the card and reduce over gloo, by way of the host",
    "batch per process (slot), so that twice as many train twice as large a batch in all",
    "float32, the loss read after every step, batches gathered on the CPU in the training thread",
)


def run(options: argparse.Namespace) -> None:
    """Take turns; where there is no GPU, end with a message and exit code 1."""
    import torch

    if not torch.cuda.is_available():
        why = (
            "" if torch.version.cuda else f" (and torch {torch.__version__} is built without CUDA)"
        )
        sys.exit(f"no GPU here{why}: nothing to measure")
    card = torch.cuda.get_device_name(0)
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    compare(options, device="gpu", facts={"GPU": card})


def compare(options: argparse.Namespace, *, device: str, facts: dict[str, str]) -> None:
    """Take turns on a device."""
    epochs, repeat = (3, 1) if options.quick else (5, 5)
    values: dict[str, list[float]] = defaultdict(list)
    with pool.embedded_stack(
        workers=max(SLOTS), device=device, slots_per_gpu=max(SLOTS)
    ) as client:  # fmt: skip
        digits = pool.put_digits(client, options, throughput=True)
        for name, (files, _, _) in NETWORKS.items():
            pool.put_function(client, name, *files)
            # Once for nothing: the workers load torch, the shards, and the GPU's libraries.
            kubeml(client, name, epochs=2, slots=max(SLOTS), device=device)
        for _ in range(options.repeat or repeat):
            for name in NETWORKS:
                for contestant, rate in turn(client, digits.file, name, epochs, device=device):
                    values[f"{name}, {contestant}"].append(rate)
    rates = all_series(values, "samples/s")
    ratios = [
        ratio(f"{name}, {ours} / {other}", rates[f"{name}, {ours}"], rates[f"{name}, {other}"])
        for name in NETWORKS
        for ours in (f"kubeml N={slots}" for slots in SLOTS)
        for other in ("plain", *DDP)
    ]
    publish(options, COUNTED, [*rates.values(), *ratios], facts={"data": digits.source, **facts})


def turn(
    client: Client, data: Path, name: str, epochs: int, *, device: str
) -> Iterator[tuple[str, float]]:
    """Every contestant once, with its samples per second."""
    yield "plain", pytorch(data, name, epochs, device=device)
    for slots in SLOTS:
        yield f"kubeml N={slots}", kubeml(client, name, epochs=epochs, slots=slots, device=device)
    for contestant, (world, backend) in DDP.items():
        yield contestant, pytorch(data, name, epochs, device=device, world=world, backend=backend)


def pytorch(
    data: Path, name: str, epochs: int, *, device: str, world: int = 0, backend: str = "gloo"
) -> float:
    """Samples per second of PyTorch: one process as it is, or so many under DDP."""
    _, batch, _ = NETWORKS[name]
    results = race(
        "sgd", data=data, network=name, batch=batch, lr=pool.LR, epochs=epochs,
        device="cuda" if device == "gpu" else "cpu",
        backend=backend if device == "gpu" else "gloo",
        processes=world or 1, is_group=world > 0,
    )  # fmt: skip
    slowest = max(sum(result["seconds"][1:]) for result in results)
    return sum(result["samples"] for result in results) * (epochs - 1) / slowest


def kubeml(client: Client, name: str, *, epochs: int, slots: int, device: str) -> float:
    """Samples per second of a job."""
    _, batch, k = NETWORKS[name]
    rows = pool.train(
        client, name, epochs=epochs, parallelism=slots, k=k, batch_size=batch, device=device
    ).history()
    return pool.steady_rate(rows)
