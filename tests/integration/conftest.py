"""A pool of two workers for the tests of this folder, with a small dataset and functions."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.client.job import Job
from tests.cluster import Cluster, on_database, running_cluster
from tests.eventually import eventually

FUNCTIONS = Path(__file__).parents[1] / "functions"

Submit = Callable[..., Job]


@pytest.fixture(scope="session")
def cluster(s3_settings: Settings) -> Iterator[Cluster]:
    """One parameter server, one control worker, two training workers."""
    settings = on_database(s3_settings, 2).with_changes(lease_s=3.0)
    yield from running_cluster(settings, workers=2)


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Client:
    """A client of that pool, with the dataset ``points`` in place."""
    put_points(cluster.client)
    return cluster.client


@pytest.fixture(scope="session")
def submit(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Submit:
    """Submit a job with one of the functions of ``tests/functions``."""
    known: dict[str, str] = {}

    def submit(function: str = "tiny", *, dataset: str = "points", **options: object) -> Job:
        if function not in known:
            known[function] = put_function(client, function, tmp_path_factory.mktemp("code"))
        values: dict[str, object] = {"epochs": 1, "batch_size": 16, "lr": 0.05, "static": True}
        return client.train(known[function], dataset, **(values | options))  # type: ignore[arg-type]

    return submit


def make_points(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A separable set of points in 8 dimensions and 3 classes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.5, (3, 8))
    labels = rng.integers(0, 3, count)
    return (centres[labels] + rng.normal(0, 0.5, (count, 8))).astype(np.float32), labels


def put_points(client: Client, *, rows: int = 1200, name: str = "points") -> None:
    """The points, the last 300 as test set."""
    data, labels = make_points(rows + 300)
    client.datasets.create(
        name,
        train_data=data[:rows],
        train_labels=labels[:rows],
        test_data=data[rows:],
        test_labels=labels[rows:],
    )


def put_function(client: Client, name: str, folder: Path) -> str:
    """Create a function from ``tests/functions/{name}.py`` and the module it builds on, once."""
    if name in [info.name for info in client.functions.list()]:
        return name
    for source in {f"{name}.py", "tiny.py"}:
        shutil.copy(FUNCTIONS / source, folder / source)
    if name != "tiny":
        # One `main` per bundle says which file is the entry.
        text = (folder / "tiny.py").read_text().split("def main")[0]
        (folder / "tiny.py").write_text(text)
    # Their check is the matter of other tests, and takes seconds.
    client.functions.create(name, folder, check=False)
    return name


def wait_for_round(
    job: Job, *, epoch: int = 1, round_number: int = 1, within_s: float = 60
) -> None:
    """Wait until a job has merged so many rounds of an epoch."""

    def is_there() -> bool:
        status = job.status()
        assert not status.state.is_final, status.reason
        return (status.epoch, status.round) >= (epoch, round_number)

    eventually(is_there, within_s=within_s, what=f"epoch {epoch}, round {round_number}")
