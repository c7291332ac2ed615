"""A network in plain PyTorch: one process alone, or one of several under DDP.

Reports the seconds that each epoch trained (from its first batch to its last), the accuracy after
it, and the seconds from the start to the end, evaluations included.
"""

import time
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scripts.benchmarks.functions import network as net
from scripts.benchmarks.functions.resnet import ResNet18
from scripts.benchmarks.race import get_ready, given, report

NETWORKS = {"lenet": net.LeNet, "resnet18": ResNet18}

#: Test digits per evaluation step.
TEST_BATCH = 256


def main() -> None:
    # ``goal``, a test accuracy in percent to stop at, is for the CPU.
    options = given(
        network="lenet", device="cpu", backend="gloo", goal=None, seed=0, rank=0, world=1,
        rendezvous="",
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    with np.load(options.data, allow_pickle=False) as arrays:
        train = arrays["x_train"], arrays["y_train"]
        test = arrays["x_test"], arrays["y_test"]
    device = torch.device(options.device)
    network = NETWORKS[options.network]()
    net.initialise(network)
    network.to(device)
    if options.rendezvous:
        dist.init_process_group(
            options.backend, init_method=f"file://{options.rendezvous}", rank=options.rank,
            world_size=options.world,
        )  # fmt: skip
        network = DistributedDataParallel(network)
    optimizer = net.make_optimizer(network.parameters(), options.lr)
    get_ready()
    started = time.perf_counter()
    seconds, accuracies, samples = [], [], 0
    for epoch in range(1, options.epochs + 1):
        begun = time.perf_counter()
        rows = rows_of(epoch, len(train[0]), options)
        for low in range(0, len(rows), options.batch):
            batch = net.gather(*train, rows[low : low + options.batch])
            net.step(network, optimizer, [part.to(device, non_blocking=True) for part in batch])
        seconds.append(time.perf_counter() - begun)
        samples = len(rows)
        if options.goal is not None:
            accuracies.append(evaluate(network, test, options))
            if accuracies[-1] >= options.goal:
                break
    report(
        seconds=seconds, accuracies=accuracies, samples=samples,
        wall_s=time.perf_counter() - started,
    )  # fmt: skip


def rows_of(epoch: int, count: int, options: SimpleNamespace) -> np.ndarray:
    """This rank's rows of an epoch; as many for every rank."""
    order = np.random.default_rng([options.seed, epoch]).permutation(count)
    return order[options.rank :: options.world][: count // options.world]


@torch.no_grad()
def evaluate(
    network: nn.Module, test: tuple[np.ndarray, np.ndarray], options: SimpleNamespace
) -> float:
    """Accuracy in percent on the test digits, which the ranks share."""
    # DDP's own forward would wait for the others' batches: of the last one there may be no peer.
    bare = network.module if isinstance(network, DistributedDataParallel) else network
    rows = np.arange(options.rank, len(test[0]), options.world)
    correct = sum(
        net.num_correct(bare, net.gather(*test, rows[low : low + TEST_BATCH]))
        for low in range(0, len(rows), TEST_BATCH)
    )
    counted = torch.tensor([correct])
    if options.world > 1:
        dist.all_reduce(counted)
    return 100 * counted.item() / len(test[0])


if __name__ == "__main__":
    main()
