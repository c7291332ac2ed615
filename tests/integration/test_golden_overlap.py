"""Two slots with ``--overlap`` are CoCoD-SGD written down by hand, bit for bit."""

import numpy as np
import torch

from kubeml.client.client import Client
from kubeml.jobs.plan import EpochPlan, stream_seed
from kubeml.runtime.user_code import seed_everything
from tests.functions import tiny
from tests.integration.conftest import Submit, make_points

Weights = dict[str, torch.Tensor]

K, BATCH, LR, SEED, SLOTS = 7, 16, 0.05, 11, 2


def test_two_slots_end_with_the_bits_of_the_algorithm_by_hand(
    client: Client, submit: Submit
) -> None:
    job = submit(parallelism=SLOTS, k=K, epochs=2, batch_size=BATCH, lr=LR, seed=SEED, overlap=True)
    job.wait(60)

    expected = cocod(client, epochs=2)

    state = job.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def cocod(client: Client, *, epochs: int) -> Weights:
    """arXiv:1906.12043 on the same rows and seeds, without kubeml's runtime, merge or transport."""
    torch.set_num_threads(1)
    data, labels = make_points(1500)
    seed_everything(stream_seed(SEED, "init"))
    net = tiny.Net()
    for p in net.parameters():
        if p.dim() > 1:
            torch.nn.init.xavier_uniform_(p)
    merged = copied(net)
    shard_rows = client.datasets.show("points").train.shard_rows
    for epoch in range(1, epochs + 1):
        plan = EpochPlan(
            seed=SEED, epoch=epoch, shard_rows=shard_rows, num_slots=SLOTS, k=K, batch_size=BATCH
        )
        local = [merged] * SLOTS
        for index in range(plan.num_rounds):
            sizes = [plan.num_samples(index, slot) for slot in range(SLOTS)]
            for slot in range(SLOTS):
                rows = plan.rows(index, slot)
                seed_everything(stream_seed(SEED, epoch, index, slot))
                end = trained(net, local[slot], data[rows], labels[rows])
                if index:
                    end = {name: (end[name] - local[slot][name]) + merged[name] for name in end}
                local[slot] = end
            total = sum(sizes)
            merged = {
                name: sum(  # type: ignore[misc]
                    (local[slot][name].double() * (sizes[slot] / total) for slot in range(SLOTS)),
                    torch.zeros(()).double(),
                ).float()
                for name in merged
            }
    return merged


def trained(net: tiny.Net, start: Weights, data: np.ndarray, labels: np.ndarray) -> Weights:
    net.load_state_dict(start)
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)
    for low in range(0, len(data), BATCH):
        x = torch.from_numpy(data[low : low + BATCH])
        y = torch.from_numpy(labels[low : low + BATCH])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return copied(net)


def copied(net: tiny.Net) -> Weights:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}
