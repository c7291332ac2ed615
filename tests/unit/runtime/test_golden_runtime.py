"""One slot that carries its optimizer trains as a plain PyTorch loop does, bit for bit."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from kubeml.runtime.function import FunctionRuntime
from kubeml.runtime.loading import load_function
from kubeml.runtime.user_code import seed_everything
from kubeml.sdk.context import JobArgs

CODE = """
import torch
import torch.nn.functional as F
from torch import nn
from kubeml import KubeDataset, KubeModel

class Data(KubeDataset):
    def __init__(self):
        super().__init__("images")

class Model(KubeModel):
    def configure_optimizers(self):
        return torch.optim.{optimizer}(self.parameters(), lr=self.lr, **{options})
    def train(self, batch, i):
        x, y = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

def main():
    return Model({network}, Data()).start()
"""

NETWORK = """nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Dropout(0.3), nn.Linear(100, 5))"""

BATCH, LR = 16, 0.01


class Images:
    """Random images in memory: pure data."""

    def __init__(self, dtype: type) -> None:
        rng = np.random.default_rng(3)
        self.data = rng.normal(size=(120, 1, 12, 12)).astype(dtype)
        self.labels = rng.integers(0, 5, 120)

    def gather(self, _split: str, rows: Any) -> tuple[Any, Any]:
        return self.data[rows], self.labels[rows]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("SGD", {"momentum": 0.9, "weight_decay": 1e-4}),
        ("Adam", {}),
        ("AdamW", {"amsgrad": True}),
        ("RMSprop", {"momentum": 0.5}),
        ("Adagrad", {"initial_accumulator_value": 0.1}),
    ],
    ids=["sgd", "adam", "adamw", "rmsprop", "adagrad"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_one_slot_that_carries_its_optimizer_is_a_plain_loop(
    tmp_path: Path, optimizer: str, options: dict[str, Any], dtype: type
) -> None:
    network = NETWORK + (".double()" if dtype is np.float64 else "")
    images = Images(dtype)
    text = CODE.format(optimizer=optimizer, options=options, network=network)
    (tmp_path / "net.py").write_text(text)
    runtime = load_function(
        tmp_path, entry="net.py", args=JobArgs(lr=LR, batch_size=BATCH), reader=images,
        device="cpu", logger=logging.getLogger("test"), init_seed=7,
    )  # fmt: skip
    runtime.init()
    rounds = [np.random.default_rng(i).permutation(120)[:40] for i in range(4)]

    state = None
    for index, rows in enumerate(rounds):
        result = runtime.train_round(
            epoch=1 + index // 2, slot=0, num_slots=1, lr=LR, batch_size=BATCH, rows=rows,
            seed=index, optimizer_state_policy="carry", optimizer_state=state,
            on_batch=lambda _index: None,
        )  # fmt: skip
        state = result.optimizer_state
        runtime.load_weights(memoryview(bytes(result.contribution)))

    seed_everything(7)
    net = eval(network)  # noqa: S307 - the constant above
    expected = plain_loop(
        net, getattr(torch.optim, optimizer)(net.parameters(), lr=LR, **options), images, rounds
    )
    trained = runtime._network.state_dict()
    assert {n: t.numpy().tobytes() for n, t in trained.items()} == {
        n: t.numpy().tobytes() for n, t in expected.items()
    }


def plain_loop(
    net: nn.Module, optimizer: torch.optim.Optimizer, images: Images, rounds: list[Any]
) -> dict[str, torch.Tensor]:
    """One optimizer from beginning to end, no kubeml."""
    net.train()
    for index, rows in enumerate(rounds):
        seed_everything(index)
        for low in range(0, len(rows), BATCH):
            part = rows[low : low + BATCH]
            optimizer.zero_grad()
            out = net(torch.from_numpy(images.data[part]))
            F.cross_entropy(out, torch.from_numpy(images.labels[part])).backward()
            optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize("policy", ["reset", "local", "carry"])
def test_optimizer_that_fills_its_state_when_made_starts_each_round_with_it(
    tmp_path: Path, policy: str
) -> None:
    # Adagrad in torch 2.6 does so, and fails once its state is merely cleared.
    text = CODE.format(optimizer="SGD", options={}, network="nn.Linear(144, 5)").replace(
        "    def configure_optimizers", EAGER + "    def configure_optimizers_of_sgd"
    )
    (tmp_path / "net.py").write_text(text)
    images = Images(np.float32)
    images.data = images.data.reshape(120, 144)
    runtime = load_function(
        tmp_path, entry="net.py", args=JobArgs(), reader=images,
        device="cpu", logger=logging.getLogger("test"), init_seed=7,
    )  # fmt: skip
    counts: list[float] = []

    state = None
    for index in range(2):
        result = runtime.train_round(
            epoch=1, slot=0, num_slots=1, lr=LR, batch_size=BATCH, rows=np.arange(32), seed=index,
            optimizer_state_policy=policy, optimizer_state=state, on_batch=_noter(runtime, counts),
        )  # fmt: skip
        state = result.optimizer_state

    assert counts == ([1, 2, 1, 2] if policy == "reset" else [1, 2, 3, 4])


EAGER = """
    def configure_optimizers(self):
        class Eager(torch.optim.SGD):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                for p in self.param_groups[0]["params"]:
                    self.state[p]["count"] = torch.zeros(())
            def step(self):
                super().step()
                for p in self.param_groups[0]["params"]:
                    self.state[p]["count"] += 1
        return Eager(self.parameters(), lr=self.lr)
"""


def _noter(runtime: FunctionRuntime, counts: list[float]) -> Callable[[int], None]:
    def note(_index: int) -> None:
        state = runtime._model.optimizer.state
        counts.append(next(iter(state.values()))["count"].item())

    return note
