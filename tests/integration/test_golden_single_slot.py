"""N=1 is plain local training, bit for bit: through the whole pipeline and by hand."""

import torch

from kubeml.client.client import Client
from kubeml.jobs.plan import EpochPlan, stream_seed
from kubeml.runtime.user_code import seed_everything
from tests.functions import tiny
from tests.integration.conftest import Submit, make_points


def test_one_slot_ends_with_the_bits_of_a_plain_loop_over_the_same_plan(
    client: Client, submit: Submit
) -> None:
    job = submit(
        parallelism=1, k=7, epochs=2, batch_size=16, lr=0.05, seed=11, optimizer_state="carry"
    )
    job.wait(60)

    expected = plain_loop(seed=11, k=7, epochs=2, batch_size=16, lr=0.05, client=client)

    state = job.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert set(state) == set(expected)


def plain_loop(
    *, seed: int, k: int, epochs: int, batch_size: int, lr: float, client: Client
) -> dict[str, torch.Tensor]:
    """The same network, rows and seeds, without kubeml's runtime, merge or transport."""
    torch.set_num_threads(1)
    manifest = client.datasets.show("points")
    data, labels = make_points(1500)
    seed_everything(stream_seed(seed, "init"))
    net = tiny.Net()
    for p in net.parameters():
        if p.dim() > 1:
            torch.nn.init.xavier_uniform_(p)
    momentum = None
    for epoch in range(1, epochs + 1):
        plan = EpochPlan(
            seed=seed, epoch=epoch, shard_rows=manifest.train.shard_rows, num_slots=1, k=k,
            batch_size=batch_size,
        )  # fmt: skip
        for index in range(plan.num_rounds):
            optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
            if momentum is not None:
                optimizer.load_state_dict(momentum)
            seed_everything(stream_seed(seed, epoch, index, 0))
            rows = plan.rows(index, 0)
            net.train()
            for low in range(0, len(rows), batch_size):
                part = rows[low : low + batch_size]
                x, y = torch.from_numpy(data[part]), torch.from_numpy(labels[part])
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()
            momentum = optimizer.state_dict()
    return dict(net.state_dict())


def test_one_slot_with_overlap_is_plain_training_but_for_rounding(
    client: Client, submit: Submit
) -> None:
    # The merged weights are what it handed in: the correction adds what it takes away.
    job = submit(
        parallelism=1, k=7, epochs=2, batch_size=16, lr=0.05, seed=11, optimizer_state="carry",
        overlap=True,
    )  # fmt: skip
    job.wait(60)

    expected = plain_loop(seed=11, k=7, epochs=2, batch_size=16, lr=0.05, client=client)

    state = job.state_dict()
    assert all(
        torch.allclose(state[name], tensor, rtol=1e-4, atol=1e-5)
        for name, tensor in expected.items()
    )
