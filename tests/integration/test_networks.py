"""Networks with BatchNorm, Adam, tied and frozen parameters, float64, bfloat16; a regression."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kubeml.client.client import Client
from kubeml.client.job import Job
from tests.functions import networks
from tests.integration.conftest import FUNCTIONS


@pytest.fixture(scope="module")
def datasets(client: Client) -> None:
    """A regression set, and the points once more in float64."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 8)).astype(np.float32)
    y = (x @ np.arange(8, dtype=np.float32)).astype(np.float32)
    client.datasets.create(
        "line", train_data=x[:1200], train_labels=y[:1200, None], test_data=x[1200:],
        test_labels=y[1200:, None],
    )  # fmt: skip
    centres = rng.normal(0, 1.5, (3, 8))
    labels = rng.integers(0, 3, 1500)
    data = centres[labels] + rng.normal(0, 0.5, (1500, 8))
    client.datasets.create(
        "points64", train_data=data[:1200], train_labels=labels[:1200], test_data=data[1200:],
        test_labels=labels[1200:],
    )  # fmt: skip


def train(client: Client, kind: str, dataset: str, folder: Path, **options: object) -> Job:
    shutil.copy(FUNCTIONS / "networks.py", folder / "networks.py")
    (folder / "main.py").write_text(
        f"from networks import make\n\n\ndef main():\n    return make({kind!r}).start()\n"
    )
    client.functions.create(f"net-{kind}", folder, check=False)
    values = {"lr": 0.05, "k": 5, "parallelism": 3, "static": True, "optimizer_state": "carry"}
    job = client.train(f"net-{kind}", dataset, epochs=3, batch_size=16, **(values | options))  # type: ignore[arg-type]
    job.wait(120)
    return job


@pytest.mark.parametrize(
    ("kind", "dataset", "options", "accuracy"),
    [
        ("batchnorm", "points", {}, 95),
        ("adam", "points", {"lr": 0.01}, 95),
        ("tied", "points", {}, 90),
        ("regression", "line", {"lr": 0.005}, 60),
        ("float64", "points64", {}, 95),
        ("half", "points", {}, 90),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("datasets")
def test_network_trains_and_reloads(
    client: Client,
    tmp_path: Path,
    kind: str,
    dataset: str,
    options: dict[str, object],
    accuracy: float,
) -> None:
    job = train(client, kind, dataset, tmp_path, **options)

    end = job.result()
    state = job.state_dict()
    network = networks.make(kind)._network
    original = network.state_dict()
    assert end.accuracy is not None
    assert end.accuracy > accuracy
    assert {n: (t.dtype, t.shape) for n, t in state.items()} == {
        n: (t.dtype, t.shape) for n, t in original.items()
    }
    network.load_state_dict(state)


@pytest.mark.usefixtures("datasets")
def test_tied_tensors_stay_tied_and_frozen_ones_as_they_began(
    client: Client, tmp_path: Path
) -> None:
    job = client.train(
        "net-tied", "points", epochs=1, batch_size=16, lr=0.05, parallelism=2, static=True
    )
    job.wait(60)

    first = client.backends.checkpoints.at(job.id, 0)
    state = job.state_dict()
    assert first is not None
    assert first.frozen is not None
    assert {spec.name for spec in first.layout.frozen} == {"fixed.weight", "fixed.bias"}
    assert {s.name: s.aliases for s in first.layout.moving}["encode.weight"] == ("decode.weight",)
    assert torch.equal(state["encode.weight"], state["decode.weight"])
    frozen = np.frombuffer(client.backends.checkpoints.tensors(first.frozen), np.float32)
    kept = torch.cat([state["fixed.weight"].flatten(), state["fixed.bias"]]).numpy()
    assert sorted(frozen.tolist()) == sorted(kept.tolist())


@pytest.mark.usefixtures("datasets")
def test_batchnorm_counters_stay_integers_and_count(client: Client) -> None:
    job = client.train(
        "net-batchnorm", "points", epochs=2, batch_size=20, lr=0.05, k=5, parallelism=2,
        static=True,
    )  # fmt: skip
    job.wait(60)

    counter = job.state_dict()["1.num_batches_tracked"]

    # 1200 rows / 2 slots / 20 rows = 30 batches a slot and epoch.
    assert counter.dtype == torch.int64
    assert counter.item() == 60
