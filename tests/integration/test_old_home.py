"""What an earlier version left in its KUBEML_HOME: ``kubeml up`` shows it all, and goes on with it.

``tests/assets/make_home.py`` makes such a home and notes what the version's own commands said.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from brokers.settings import Settings
from kubeml import Client
from tests.cli import Cli

ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True, kw_only=True)
class OldHome:
    """This version's stack on an earlier one's home, and what was said of that then."""

    client: Client
    told: dict[str, Any]

    @property
    def weights(self) -> str:
        """SHA-256 of the done job's weights: every job of this home ends with these."""
        return str(self.told["jobs"][self.told["done"]]["history"][-1]["weights_sha256"])


@pytest.fixture(scope="module", params=sorted(ASSETS.glob("home-*.tar.xz")), ids=lambda p: p.name)
def old(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldHome]:
    """The stack of this version, up on the home of another."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(request.param) as tar:
        tar.extractall(folder, filter="data")
    told = json.loads((folder / "told.json").read_text())
    cli = Cli(Settings(home=folder / "home"), folder)
    # Where the servers are is for the profile to say.
    cli.env = dict.fromkeys(("KUBEML_BROKER_URL", "KUBEML_STATE_URL"), "")
    try:
        up = cli("up --workers 2")
        assert up.code == 0, up.err
        with Client(Settings.load({"home": folder / "home"}, environ={})) as client:
            yield OldHome(client=client, told=told)
    finally:
        cli("down")


def test_functions_and_datasets_are_listed_as_they_were(old: OldHome) -> None:
    functions = [info.to_wire() for info in old.client.functions.list()]
    datasets = [manifest.to_wire() for manifest in old.client.datasets.list()]

    assert [info["name"] for info in functions] == ["exact"]
    assert [manifest["name"] for manifest in datasets] == ["points"]
    assert differences(old.told["functions"], functions) == []
    assert differences(old.told["datasets"], datasets) == []


def test_ended_jobs_are_shown_as_they_were(old: OldHome) -> None:
    listed = {status.id: status.to_wire() for status in old.client.histories()}

    assert set(old.told["jobs"]) == {old.told["done"], old.told["stopped"]} <= set(listed)
    for row in old.told["histories"]:
        assert differences(row, listed[row["id"]]) == []
    for job_id, told in old.told["jobs"].items():
        job = old.client.job(job_id)
        now = {
            "show": job.status().to_wire(),
            "history": [row.to_wire() for row in job.history()],
            "audit": job.audit().to_wire(),
            "explain": job.explain().to_wire(),
            "logs": [line.to_wire() for line in job.logs()],
        }
        assert differences(told, now) == []


def test_a_done_job_has_the_weights_that_it_had(old: OldHome) -> None:
    job = old.client.job(old.told["done"])

    # Reads the objects of every checkpoint.
    assert job.audit(verify=True).is_exact
    assert job.state_dict()["weight"].shape == (3, 8)
    assert job.infer(old.told["points"]) == old.told["predictions"]
    assert len(set(old.told["predictions"])) == 3


@pytest.mark.timeout(180)
def test_a_job_that_was_under_way_goes_on_to_the_same_weights(old: OldHome) -> None:
    job = old.client.job(old.told["running"])
    assert job.id in [status.id for status in old.client.jobs()]

    end = job.wait(100)

    assert end.weights_sha256 == old.weights
    assert job.audit().is_exact


@pytest.mark.timeout(180)
def test_a_stopped_job_is_resumed_to_the_same_weights(old: OldHome) -> None:
    job = old.client.job(old.told["stopped"]).resume()

    end = job.wait(100)

    assert end.weights_sha256 == old.weights
    assert job.audit().is_exact


@pytest.mark.timeout(180)
def test_a_new_job_on_the_old_dataset_has_the_old_jobs_weights(old: OldHome) -> None:
    job = old.client.train(
        "exact", "points", epochs=3, batch_size=16, lr=0.25, k=4, parallelism=2, static=True,
        optimizer_state="carry", seed=4,
    )  # fmt: skip

    assert job.wait(100).weights_sha256 == old.weights


def differences(told: Any, now: Any, where: str = "") -> list[str]:
    """What was told and is told otherwise now. That more is told is no difference."""
    now = list(now) if isinstance(now, tuple) else now
    if isinstance(told, dict) and isinstance(now, dict):
        return [
            fault
            for key, value in told.items()
            for fault in (
                differences(value, now[key], f"{where}.{key}")
                if key in now
                else [f"{where}.{key} is gone"]
            )
        ]
    if isinstance(told, list) and isinstance(now, list) and len(told) == len(now):
        pairs = enumerate(zip(told, now, strict=True))
        return [f for i, (a, b) in pairs for f in differences(a, b, f"{where}[{i}]")]
    return [] if told == now else [f"{where} was {told!r}, is {now!r}"]
