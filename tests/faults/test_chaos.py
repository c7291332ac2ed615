"""Tier 3 in small: everything is killed at random, and nothing is lost."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.settings import Settings
from kubeml.client.client import Client
from tests.cli import Cli
from tests.integration.conftest import put_function, put_points, wait_for_round


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    command = Cli(Settings(home=tmp_path / "home"), tmp_path)
    command.env = dict.fromkeys(("KUBEML_BROKER_URL", "KUBEML_STATE_URL"), "")
    yield command
    command("down")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_chaos_ends_with_the_same_bits(cli: Cli, tmp_path: Path) -> None:
    assert cli("up --workers 2").code == 0
    with Client(Settings.load({"home": cli.settings.home}, environ={})) as client:
        put_points(client)
        code = tmp_path / "code"
        code.mkdir()
        put_function(client, "slow", code)

    ran = cli(
        "chaos -f slow -d points --every 4s --for 30s --epochs 3 --K 8 --batch 10 "
        "--png chaos.png --json",
        within_s=240,
    )

    report = json.loads(ran.out)
    assert ran.code == 0, report["faults"]
    assert report["same_bits"]
    assert len(report["kills"]) >= 5
    assert len({kill["kind"] for kill in report["kills"]}) >= 2
    assert (tmp_path / "chaos.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.full
def test_down_in_mid_training_loses_the_slots_in_hand_alone(cli: Cli, tmp_path: Path) -> None:
    assert cli("up --workers 2").code == 0
    settings = Settings.load({"home": cli.settings.home}, environ={})
    with Client(settings) as client:
        put_points(client)
        put_function(client, "slow", tmp_path)
        job = client.train(
            "slow", "points", epochs=2, batch_size=10, k=8, static=True, optimizer_state="carry"
        )
        wait_for_round(job, epoch=1, round_number=2)

    assert cli("down").code == 0
    assert cli("up --workers 2").code == 0

    with Client(Settings.load({"home": cli.settings.home}, environ={})) as client:
        job = client.job(job.id)
        job.wait(60)
        audit = job.audit(verify=True)
    assert audit.is_exact
    assert len(audit.generations) == 1  # no epoch was begun anew
    assert sum(len(epoch.failed) for epoch in audit.epochs) <= 2


def test_chaos_without_a_stack_says_what_to_do(cli: Cli) -> None:
    refused = cli("chaos -f slow -d points --for 10s")

    assert refused.code == 4
    assert "kubeml up" in refused.err


@pytest.mark.parametrize("line", ["--kill cpu", "--every never", "--for 0"])
def test_chaos_refuses_what_it_cannot_read(cli: Cli, line: str) -> None:
    assert cli(f"chaos -f slow -d points {line}").code == 2
