"""The runtime: the user's API as KubeML had it, batches, seeds, optimizers, errors."""

import copy
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kubeml.errors import (
    Abandoned,
    InvalidFunction,
    LayoutMismatch,
    MalformedMessage,
    UserCodeError,
)
from kubeml.runtime import optimizer_state
from kubeml.runtime.batches import batches
from kubeml.runtime.function import FunctionRuntime, RoundResult
from kubeml.runtime.loading import load_function
from kubeml.sdk.context import JobArgs
from kubeml.sdk.dataset import KubeDataset

HEAD = """
import random
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from kubeml import KubeDataset, KubeModel

class Data(KubeDataset):
    def __init__(self):
        super().__init__("points")

class Model(KubeModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
    def train(self, batch, i):
        x, y = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()
    def validate(self, batch, i):
        x, y = batch
        out = self(x)
        right = (out.argmax(1) == y).sum().item()
        return 100.0 * right / self.batch_size, F.cross_entropy(out, y).item()
    def infer(self, data):
        return self(torch.tensor(data)).argmax(1)
"""

MAIN = """
def main():
    return Model(nn.Linear(4, 2), Data()).start()
"""


class ArrayRows:
    """Rows in memory: pure data."""

    def __init__(self, rows: int = 100) -> None:
        rng = np.random.default_rng(2)
        self.data = rng.normal(size=(rows, 4)).astype(np.float32)
        self.labels = (self.data.sum(1) > 0).astype(np.int64)

    def gather(self, _split: str, rows: Any) -> tuple[Any, Any]:
        return self.data[rows], self.labels[rows]


def load(tmp_path: Path, code: str = MAIN, *, head: str = HEAD, **args: Any) -> FunctionRuntime:
    (tmp_path / "net.py").write_text(head + code)
    runtime = load_function(
        tmp_path, entry="net.py", args=JobArgs(job_id="j", **args), reader=ArrayRows(),
        device="cpu", logger=logging.getLogger("test"), init_seed=1,
    )  # fmt: skip
    runtime.init()
    return runtime


def train(runtime: FunctionRuntime, **changes: Any) -> RoundResult:
    values: dict[str, Any] = {
        "epoch": 1, "slot": 0, "num_slots": 1, "lr": 0.1, "batch_size": 16,
        "rows": np.arange(40), "seed": 5, "optimizer_state_policy": "reset",
        "optimizer_state": None, "on_batch": lambda _index: None,
    }  # fmt: skip
    return runtime.train_round(**(values | changes))


def test_published_form_of_the_api_works(tmp_path: Path) -> None:
    # kubeml 0.1.7: init(self) without argument, per-sample transforms, self.args, epoch-wise rate.
    code = """
class Compose:
    def __init__(self, *steps): self.steps = steps
    def __call__(self, x):
        for step in self.steps: x = step(x)
        return x

class Old(KubeDataset):
    def __init__(self):
        super().__init__("points")
        self.transf = Compose(torch.from_numpy, lambda t: (t - 0.1) / 0.9)
    def __getitem__(self, index):
        return self.transf(self.data[index]), self.labels[index].astype("int64")
    def __len__(self):
        return len(self.data)

class OldModel(Model):
    def init(self):
        nn.init.constant_(self._network.weight, 0.25)
    def configure_optimizers(self):
        rates.append((self.lr if self.epoch < 2 else self.lr / 10, self.args.lr, self.args.epoch))
        return torch.optim.SGD(self.parameters(), lr=rates[-1][0], momentum=0.9)
    def train(self, batch, i):
        assert self.task == "train" and self.args._N == 3 and self.args._func_id == 1
        assert self.args.batch_size == 16 and batch[0].shape[0] == self.batch_size
        return super().train(batch, i)

rates = []

def main():
    return OldModel(nn.Linear(4, 2), Old(), gpu=False).start()
"""
    runtime = load(tmp_path, code, lr=0.1, batch_size=16)
    before = np.frombuffer(runtime.weights(), np.float32)

    train(runtime, slot=1, num_slots=3)
    train(runtime, slot=1, num_slots=3, epoch=2)

    rates = runtime._bundle.module("net").rates
    assert (before[:8] == 0.25).all() or (before[-8:] == 0.25).all()
    assert rates == [(0.1, 0.1, 1), (pytest.approx(0.01), 0.1, 2)]


def test_batch_size_is_that_of_the_batch_in_hand(tmp_path: Path) -> None:
    code = """
sizes = []
class Sizes(Model):
    def train(self, batch, i):
        sizes.append((self.batch_size, len(batch[0])))
        return 1.0
def main():
    return Sizes(nn.Linear(4, 2), Data()).start()
"""
    runtime = load(tmp_path, code)

    result = train(runtime, rows=np.arange(40))

    assert runtime._bundle.module("net").sizes == [(16, 16), (16, 16), (8, 8)]
    assert result.num_steps == 3
    assert result.num_samples == 40


def test_loss_is_averaged_over_samples(tmp_path: Path) -> None:
    code = """
class Losses(Model):
    def train(self, batch, i):
        return torch.tensor(float(i))
def main():
    return Losses(nn.Linear(4, 2), Data()).start()
"""
    result = train(load(tmp_path, code), rows=np.arange(40))

    assert result.loss == pytest.approx((0 * 16 + 1 * 16 + 2 * 8) / 40)


PER_SAMPLE = """
class PerSample(Data):
    def __getitem__(self, index):
        {draw}
        return self.data[index], self.labels[index]
def main():
    return Model(nn.Linear(4, 2), PerSample()).start()
"""


@pytest.mark.parametrize(
    "draw", ["pass", "self.data[index] += np.random.rand()", "torch.rand(1)", "random.random()"]
)
def test_training_replays_bit_for_bit_with_and_without_augmentation(
    tmp_path: Path, draw: str
) -> None:
    # Dropout draws from the same global generators as augmentation: both must replay.
    code = PER_SAMPLE.replace("{draw}", draw).replace(
        "nn.Linear(4, 2)", "nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))"
    )
    runtime = load(tmp_path, code)
    start = bytes(runtime.weights())
    results = []
    for seed in (5, 5, 6):
        runtime.load_weights(memoryview(start))
        results.append(bytes(train(runtime, rows=np.arange(80), seed=seed).contribution))

    assert results[0] == results[1]
    assert results[0] != results[2]


def test_vectorised_and_per_sample_batches_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = load(tmp_path / "a")
    per_sample = load(tmp_path / "b", PER_SAMPLE.replace("{draw}", "pass"))

    assert train(plain).contribution == train(per_sample).contribution


def test_getitems_may_return_a_list_of_samples_or_a_ready_batch(tmp_path: Path) -> None:
    results = []
    for name, expression in (
        ("list", "[(self.data[i], self.labels[i]) for i in indices]"),
        ("ready", "tuple(map(torch.from_numpy, (self.data[indices], self.labels[indices])))"),
    ):
        (tmp_path / name).mkdir()
        code = (
            "class Many(Data):\n    def __getitems__(self, indices):\n"
            f"        return {expression}\n"
            "def main():\n    return Model(nn.Linear(4, 2), Many()).start()\n"
        )
        results.append(train(load(tmp_path / name, code)).contribution)

    assert results[0] == results[1]


class Drawn(KubeDataset):
    """Per-sample; draws a random number for each sample if told to."""

    def __init__(self, *, draws: bool = False, fails_at: int = -1) -> None:
        super().__init__("points")
        self._load(np.arange(80.0)[:, None], np.arange(80), is_training=True)
        self._draws, self._fails_at = draws, fails_at
        self.threads: set[str] = set()

    def __getitem__(self, index: int) -> Any:
        self.threads.add(threading.current_thread().name)
        if index == self._fails_at:
            raise ValueError("row sixty")
        return self.data[index] + (np.random.rand() if self._draws else 0.0)


def collect(dataset: Drawn, *, prefetch: bool) -> list[Any]:
    np.random.seed(1)
    made = batches(dataset, 16, torch.device("cpu"), prefetch=prefetch)
    return [(size, batch.flatten().tolist()) for size, batch in made]


@pytest.mark.parametrize("draws", [False, True], ids=["pure", "random"])
def test_prefetched_batches_are_the_same_and_random_ones_stay_in_step(draws: bool) -> None:
    plain, ahead = Drawn(draws=draws), Drawn(draws=draws)

    assert collect(ahead, prefetch=True) == collect(plain, prefetch=False)
    assert ("kubeml-prefetch" in ahead.threads) is not draws
    assert "kubeml-prefetch" not in plain.threads


def test_error_in_a_prefetched_sample_comes_up_where_it_would_have() -> None:
    with pytest.raises(ValueError, match="row sixty"):
        collect(Drawn(fails_at=60), prefetch=True)


def test_abandoned_prefetching_ends_its_thread() -> None:
    made = batches(Drawn(), 1, torch.device("cpu"), prefetch=True)
    for _ in range(3):
        next(made)

    made.close()

    assert not [t for t in threading.enumerate() if t.name == "kubeml-prefetch"]


def test_error_in_a_sample_comes_up_with_the_users_traceback(tmp_path: Path) -> None:
    draw = "assert float(self.data[index].sum()) < 1e9 and index != 60, 'row sixty'"
    runtime = load(tmp_path, PER_SAMPLE.replace("{draw}", draw))

    with pytest.raises(UserCodeError, match="row sixty") as caught:
        train(runtime, rows=np.arange(80))

    assert "net.py" in caught.value.user_traceback
    assert "kubeml/runtime/" not in caught.value.user_traceback


def test_reset_forgets_momentum_between_rounds_and_carry_keeps_it(tmp_path: Path) -> None:
    runtime = load(tmp_path)
    start = bytes(runtime.weights())

    def two_rounds(policy: str) -> bytes:
        runtime._optimizers._slots.clear()
        runtime.load_weights(memoryview(start))
        first = train(runtime, optimizer_state_policy=policy)
        return bytes(
            train(
                runtime, optimizer_state_policy=policy, optimizer_state=first.optimizer_state
            ).contribution
        )

    reset, carried, local = two_rounds("reset"), two_rounds("carry"), two_rounds("local")

    assert carried == local
    assert reset != carried


def test_carried_state_gives_the_same_bits_in_another_process_slot_or_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = load(tmp_path / "a"), load(tmp_path / "b")
    other.load_weights(memoryview(bytes(one.weights())))
    first = train(one, optimizer_state_policy="carry")

    here = train(one, optimizer_state_policy="carry", optimizer_state=first.optimizer_state, seed=9)
    other.load_weights(memoryview(bytes(first.contribution)))
    there = train(
        other, optimizer_state_policy="carry", optimizer_state=first.optimizer_state, seed=9
    )

    assert here.contribution == there.contribution
    assert here.optimizer_state == there.optimizer_state


def test_hyper_parameters_that_train_changes_do_not_outlive_the_round(tmp_path: Path) -> None:
    code = """
seen = []
class Decays(Model):
    def train(self, batch, i):
        seen.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.param_groups[0]["lr"] *= 0.5
        return super().train(batch, i)
def main():
    return Decays(nn.Linear(4, 2), Data()).start()
"""
    runtime = load(tmp_path, code)

    train(runtime, rows=np.arange(32))
    train(runtime, rows=np.arange(32))

    assert runtime._bundle.module("net").seen == [0.1, 0.05, 0.1, 0.05]


def test_gradients_of_an_earlier_round_do_not_reach_the_next(tmp_path: Path) -> None:
    # The last batch of a round is left unstepped: another slot's gradients, in this process alone.
    code = """
class Accumulates(Model):
    def train(self, batch, i):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        loss.backward()
        if i % 2:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss
def main():
    return Accumulates(nn.Linear(4, 2), Data()).start()
"""
    assert_replays(load(tmp_path, code))


def test_random_numbers_of_configure_optimizers_do_not_shift_those_of_training(
    tmp_path: Path,
) -> None:
    # It is called in a slot's first round of an epoch alone: which one that is must not matter.
    code = """
class Draws(Model):
    def configure_optimizers(self):
        torch.rand(3)
        return super().configure_optimizers()
def main():
    return Draws(nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)), Data()).start()
"""
    assert_replays(load(tmp_path, code))


def assert_replays(runtime: FunctionRuntime) -> None:
    start = bytes(runtime.weights())
    first = train(runtime).contribution
    runtime.load_weights(memoryview(start))

    assert train(runtime).contribution == first


def test_loss_is_a_mean_where_the_dataset_says_its_own_length(tmp_path: Path) -> None:
    code = """
class Twice(Data):
    def __len__(self):
        return 2 * len(self.data)
    def __getitem__(self, index):
        return self.data[index % len(self.data)], self.labels[index % len(self.data)]
class Ones(Model):
    def train(self, batch, i):
        return 1.0
    def validate(self, batch, i):
        return 50.0, 1.0
def main():
    return Ones(nn.Linear(4, 2), Twice()).start()
"""
    runtime = load(tmp_path, code)

    trained = train(runtime)
    validated = runtime.validate(
        epoch=1, slot=0, num_slots=1, batch_size=16, rows=np.arange(40), seed=0,
        on_batch=lambda _index: None,
    )  # fmt: skip

    assert (trained.num_samples, trained.loss) == (40, 1.0)
    assert (validated.num_samples, validated.accuracy, validated.loss) == (40, 50.0, 1.0)


def test_only_the_slot_served_last_holds_its_momentum(tmp_path: Path) -> None:
    runtime = load(tmp_path)
    train(runtime, optimizer_state_policy="carry", slot=0)
    first = runtime._model.optimizer
    assert first.state

    train(runtime, optimizer_state_policy="carry", slot=1)

    assert first.state == {}
    assert runtime._model.optimizer.state


def test_reset_holds_no_momentum_between_rounds(tmp_path: Path) -> None:
    runtime = load(tmp_path)

    train(runtime, optimizer_state_policy="reset")

    assert runtime._model.optimizer.state == {}


def test_an_abandoned_round_leaves_nothing_in_a_carried_state(tmp_path: Path) -> None:
    runtime = load(tmp_path)
    first = train(runtime, optimizer_state_policy="carry")
    results = []
    for is_abandoned in (False, True):
        second = {"optimizer_state_policy": "carry", "optimizer_state": first.optimizer_state}
        train(runtime, **second)
        runtime.load_weights(memoryview(bytes(first.contribution)))
        # As handed in and given back: the very bytes that the optimizer holds.
        held = {**second, "optimizer_state": train(runtime, **second).optimizer_state}
        runtime.load_weights(memoryview(bytes(first.contribution)))
        if is_abandoned:
            with pytest.raises(Abandoned):
                train(runtime, **held, on_batch=_abandon)
            runtime.load_weights(memoryview(bytes(first.contribution)))
        results.append(train(runtime, **held))

    assert results[0].contribution == results[1].contribution
    assert results[0].optimizer_state == results[1].optimizer_state


def _abandon(_index: int) -> None:
    raise Abandoned


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def main():\n    return 7\n", "does not return start"),
        ("def main():\n    raise OSError('no main for you')\n", "no main for you"),
        ("def main():\n    return Model('net', Data()).start()\n", "not an nn.Module"),
        ("def main():\n    return Model(nn.Linear(4, 2), [1]).start()\n", "not a KubeDataset"),
    ],
    ids=["no start", "raises", "no module", "no dataset"],
)
def test_broken_main_is_told_clearly(tmp_path: Path, code: str, fault: str) -> None:
    with pytest.raises((InvalidFunction, UserCodeError), match=fault):
        load(tmp_path, code)


def test_layer_made_while_training_is_refused_by_name(tmp_path: Path) -> None:
    code = """
class Grows(Model):
    def train(self, batch, i):
        self._network[0].extra = nn.Linear(4, 2)
        return super().train(batch, i)
def main():
    return Grows(nn.Sequential(nn.Linear(4, 2)), Data()).start()
"""
    with pytest.raises(LayoutMismatch, match=r"extra\.weight"):
        train(load(tmp_path, code))


def test_parameter_that_thaws_after_init_is_refused_by_name(tmp_path: Path) -> None:
    code = """
class Thaws(Model):
    def init(self, model):
        model.bias.requires_grad = False
    def configure_optimizers(self):
        self._network.bias.requires_grad = self.epoch > 1
        return super().configure_optimizers()
def main():
    return Thaws(nn.Linear(4, 2), Data()).start()
"""
    runtime = load(tmp_path, code)
    assert [spec.name for spec in runtime.layout.frozen] == ["bias"]
    train(runtime)

    with pytest.raises(LayoutMismatch, match="'bias'"):
        train(runtime, epoch=2)


@pytest.mark.parametrize("returned", ["'much'", "None", "torch.zeros(3)"])
def test_loss_that_is_no_number_is_told(tmp_path: Path, returned: str) -> None:
    code = f"""
class Odd(Model):
    def train(self, batch, i):
        return {returned}
def main():
    return Odd(nn.Linear(4, 2), Data()).start()
"""
    with pytest.raises(UserCodeError, match=r"train\(\)"):
        train(load(tmp_path, code))


def test_validation_uses_eval_mode_without_gradients(tmp_path: Path) -> None:
    code = """
class Checks(Model):
    def validate(self, batch, i):
        assert not self._network.training and not torch.is_grad_enabled()
        assert not self._dataset.is_training() and self.task == "val"
        return float(len(batch[0])), 1.0
def main():
    return Checks(nn.Linear(4, 2), Data()).start()
"""
    result = load(tmp_path, code).validate(
        epoch=1, slot=0, num_slots=1, batch_size=16, rows=np.arange(40), seed=0,
        on_batch=lambda _index: None,
    )  # fmt: skip

    assert result.accuracy == pytest.approx((16 * 16 + 16 * 16 + 8 * 8) / 40)
    assert result.loss == 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_weights_reload_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    code = f"""
def main():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).to(torch.{dtype})
    return Model(net, Data()).start()
"""
    runtime = load(tmp_path, code)
    network = runtime._network
    before = copy.deepcopy(network.state_dict())
    blob = bytes(runtime.weights())
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()

    runtime.load_weights(memoryview(blob))

    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_optimizer_state_survives_its_encoding_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    options = {"momentum": 0.9} if name in {"SGD", "RMSprop"} else {}
    net = torch.nn.Linear(4, 2)
    optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.1, **options)
    for _ in range(3):
        net(torch.randn(5, 4)).sum().backward()
        optimizer.step()

    fresh = getattr(torch.optim, name)(net.parameters(), lr=0.1, **options)
    optimizer_state.decode(fresh, optimizer_state.encode(optimizer))

    assert _flat(fresh.state_dict()["state"]) == _flat(optimizer.state_dict()["state"])


def _flat(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _flat(part) for key, part in value.items()}
    return value


@pytest.mark.parametrize("blob", [b"", b"nonsense", b"\xff" * 64], ids=["empty", "text", "bytes"])
def test_bytes_that_are_no_optimizer_state_are_refused(blob: bytes) -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(4, 2).parameters(), lr=0.1)

    with pytest.raises(MalformedMessage, match="optimizer state"):
        optimizer_state.decode(optimizer, blob)
