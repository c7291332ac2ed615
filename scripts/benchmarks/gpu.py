"""Throughput on one GPU: kubeml over plain PyTorch and DDP with NCCL, on the same card."""

import argparse
import os
import tempfile
from pathlib import Path

from kubeml.client import Client
from scripts.benchmarks import pool
from scripts.benchmarks.digits import FULL_ROWS, load
from scripts.benchmarks.measures import Series, ratio
from scripts.benchmarks.race import Contestant, race
from scripts.benchmarks.report import Report

#: Network to its files as a kubeml function, batch, and K.
NETWORKS = {
    "lenet": (pool.LENET, 128, 64),
    "resnet18": (("network", "model", "resnet", "residual"), 128, 16),
}

WORKERS = 2

COUNTED = (
    "rows of an epoch over its training time, without the first epoch: plain and DDP from its"
    " first batch to its last, kubeml `duration_s` of the history rows, with all merges",
    "all on the first card: plain is one process, and so is DDP, since NCCL refuses two on a card:"
    " it shows what DDP itself costs; kubeml N=2 is two workers that share the card",
    "float32, the loss read after every step, batches gathered on the CPU in the training thread",
)


def run(options: argparse.Namespace) -> Report | None:
    """Take turns; None where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        print("no GPU here: nothing to measure")
        return None
    card = torch.cuda.get_device_name(0)
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return compare(options, device="gpu", facts={"GPU": card})


def compare(options: argparse.Namespace, *, device: str, facts: dict[str, str]) -> Report:
    """Take turns on a device."""
    digits = load(options.mnist, rows=10_000 if options.quick else FULL_ROWS)
    epochs, repeat = (3, 1) if options.quick else (5, 5)
    values: dict[str, list[float]] = {}
    with (
        pool.embedded_stack(workers=WORKERS, device=device) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        pool.put_digits(client, digits)
        data = digits.save(Path(folder))
        for name, (files, _, _) in NETWORKS.items():
            pool.put_function(client, name, *files)
            # Once for nothing: the workers load torch, the shards, and the GPU's libraries.
            kubeml(client, name, epochs=2, slots=WORKERS, device=device)
        for _ in range(options.repeat or repeat):
            for name in NETWORKS:
                measured = {
                    "plain": pytorch(data, name, epochs, device=device, is_ddp=False),
                    "kubeml N=1": kubeml(client, name, epochs=epochs, slots=1, device=device),
                    "DDP x 1": pytorch(data, name, epochs, device=device, is_ddp=True),
                    "kubeml N=2": kubeml(client, name, epochs=epochs, slots=2, device=device),
                }
                for contestant, rate in measured.items():
                    values.setdefault(f"{name}, {contestant}", []).append(rate)
    rates = {name: Series(name=name, unit="samples/s", values=v) for name, v in values.items()}
    ratios = [
        ratio(f"{name}, {ours} / {other}", rates[f"{name}, {ours}"], rates[f"{name}, {other}"])
        for name in NETWORKS
        for ours in ("kubeml N=1", "kubeml N=2")
        for other in ("plain", "DDP x 1")
    ]
    return Report(
        name="gpu", counted=COUNTED, series=[*rates.values(), *ratios],
        facts={"data": digits.source, **facts},
    )  # fmt: skip


def pytorch(data: Path, name: str, epochs: int, *, device: str, is_ddp: bool) -> float:
    """Samples per second of one process of PyTorch, as it is or under DDP."""
    _, batch, _ = NETWORKS[name]
    where = ("cuda", "nccl") if device == "gpu" else ("cpu", "gloo")
    arguments = (
        data, "--network", name, "--batch", batch, "--lr", pool.LR, "--epochs", epochs,
        "--device", where[0], "--backend", where[1],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ddp = ("--rendezvous", Path(folder) / "rendezvous") if is_ddp else ()
        (result,) = race([Contestant("sgd", *arguments, *ddp)])
    return result["samples"] * (epochs - 1) / sum(result["seconds"][1:])


def kubeml(client: Client, name: str, *, epochs: int, slots: int, device: str) -> float:
    """Samples per second of a job."""
    _, batch, k = NETWORKS[name]
    rows = pool.train(
        client, name, epochs=epochs, parallelism=slots, k=k, batch_size=batch, device=device
    ).history()
    return pool.steady_rate(rows)
