"""The embedded stack: up, down, crashes, a power cut, two side by side."""

import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.stack.servers import are_free, free_ports
from kubeml.stack.stack import ProcessInfo, StackStatus, status
from tests.cli import Cli
from tests.eventually import eventually
from tests.integration.conftest import FUNCTIONS
from tests.scrape import Exporter


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command with a home of its own, which is taken down at the end."""
    command = Cli(Settings(home=tmp_path / "home"), tmp_path)
    # Where the servers are is for the profile to say.
    command.env = dict.fromkeys(("KUBEML_BROKER_URL", "KUBEML_STATE_URL"), "")
    yield command
    command("down")


def now(cli: Cli) -> StackStatus:
    return status(Settings.load({"home": cli.settings.home}, environ={}))


def process(cli: Cli, name: str) -> ProcessInfo:
    return next(p for p in now(cli).processes if p.name == name)


def lives(info: ProcessInfo) -> bool:
    try:
        found = psutil.Process(info.pid)
        return (
            found.status() != psutil.STATUS_ZOMBIE
            and abs(found.create_time() - info.started_at) < 1
        )
    except psutil.NoSuchProcess:
        return False


def test_up_starts_everything_and_down_leaves_nothing(cli: Cli) -> None:
    started = cli("up --workers 1")
    first = cli("status --json").json
    again = cli("up")
    everything = [ProcessInfo(**p) for p in first["processes"]]
    children = [
        ProcessInfo(name="", role="", pid=c.pid, started_at=c.create_time(), state="", restarts=0)
        for p in everything
        for c in psutil.Process(p.pid).children(recursive=True)
    ]
    control = psutil.Process(process(cli, "control").pid).children(recursive=True)
    doctor = cli("doctor --json")

    down = cli("down")

    assert started.code == 0, started.err
    roles = sorted(p["role"] for p in first["processes"])
    assert roles == ["control", "ps", "s3", "supervisor", "valkey", "worker"]
    assert all(p["state"] == "running" for p in first["processes"])
    assert control == []
    assert again.code == 0
    assert "running already" in again.err
    assert doctor.code == 0, doctor.out
    assert {finding["level"] for finding in doctor.json} <= {"ok", "warning"}
    assert down.code == 0
    assert [p for p in (*everything, *children) if lives(p)] == []
    assert cli("status").code == 5
    assert cli("down").code == 0


def test_secrets_are_private_and_on_no_command_line(cli: Cli) -> None:
    assert cli("up --workers 1").code == 0
    home = cli.settings.home
    plan = json.loads((home / "stack.json").read_text())
    secrets = [plan["password"], plan["access_key"], plan["secret_key"]]

    lines = [
        " ".join(child.cmdline())
        for child in psutil.Process(process(cli, "supervisor").pid).children(recursive=True)
    ]
    shown = cli("status --json").out + cli("status").out + cli("doctor").out
    logs = "".join(path.read_text(errors="replace") for path in (home / "logs").iterdir())

    for name in ("profile.json", "stack.json"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    for secret in secrets:
        assert not [line for line in lines if secret in line]
        assert secret not in shown
        assert secret not in logs


def test_everything_listens_on_loopback_alone(cli: Cli) -> None:
    assert cli("up --workers 1").code == 0

    supervisor = psutil.Process(process(cli, "supervisor").pid)
    listening = [
        connection.laddr.ip
        for child in supervisor.children(recursive=True)
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]

    assert len(listening) >= 5
    assert set(listening) == {"127.0.0.1"}


def test_metrics_of_every_process_are_served_on_loopback_alone(cli: Cli) -> None:
    first = next(p for p in free_ports(50) if are_free(list(range(p, p + 3))))
    with socket.socket() as other:
        other.bind(("127.0.0.1", first + 2))
        refused = cli(f"up --workers 1 --metrics-port {first}")
        was_started = now(cli).running

    started = cli(f"up --workers 1 --metrics-port {first}")

    assert (refused.code, was_started) == (4, False)
    assert f"port {first + 2} is taken" in refused.err
    assert started.code == 0, started.err
    told = [
        (first, "kubeml_server_up"), (first + 1, "kubeml_scheduler_plans_total"),
        (first + 2, "kubeml_worker_batches_total"),
    ]  # fmt: skip
    for port, name in told:
        exporter = Exporter(port)
        eventually(exporter.is_up, within_s=30, what=f"metrics on port {port}")
        assert name in exporter.text()
    status = cli("status")
    assert f"metrics on ports {first} to {first + 2}" in status.out
    listening = [
        connection.laddr
        for child in psutil.Process(process(cli, "supervisor").pid).children(recursive=True)
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {first, first + 1, first + 2} <= {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert "it serves metrics on ports" in cli("up --metrics-port 9999").err


def test_crashed_part_is_started_again_and_training_goes_on(cli: Cli) -> None:
    assert cli("up --workers 1").code == 0
    with Client(Settings.load({"home": cli.settings.home}, environ={})) as client:
        put_points_and_function(cli, client)
        job = client.train("slow", "points", epochs=2, batch_size=16, lr=0.05, k=5)
        for name in ("ps", "control", "worker-1"):
            before = process(cli, name)
            os.kill(before.pid, signal.SIGKILL)
            eventually(
                lambda name=name, before=before: (
                    (p := process(cli, name)).state == "running" and p.pid != before.pid
                ),
                within_s=30,
                what=f"{name} to run again",
            )

        end = job.wait(90)

    assert end.epoch == 2
    assert all(process(cli, name).restarts == 1 for name in ("ps", "control", "worker-1"))


def test_everything_is_found_again_after_a_power_cut(cli: Cli) -> None:
    assert cli("up --workers 1").code == 0
    with Client(Settings.load({"home": cli.settings.home}, environ={})) as client:
        put_points_and_function(cli, client)
        job = client.train("slow", "points", epochs=1, batch_size=16, lr=0.05)
        digest = job.wait(90).weights_sha256
    victims = now(cli).processes
    for info in victims:
        os.killpg(info.pid, signal.SIGKILL)
    eventually(lambda: not any(map(lives, victims)), within_s=10, what="nothing alive")

    again = cli("up --workers 1")

    assert again.code == 0, again.err
    with Client(Settings.load({"home": cli.settings.home}, environ={})) as client:
        assert [f.name for f in client.functions.list()] == ["slow"]
        assert [d.name for d in client.datasets.list()] == ["points"]
        assert [row.epoch for row in client.job(job.id).history()] == [1]
        assert client.job(job.id).result().weights_sha256 == digest
        assert client.job(job.id).state_dict()
        assert client.job(job.id).infer([[0.0] * 8]) in ([0], [1], [2])


def test_down_cleans_up_after_a_killed_supervisor(cli: Cli) -> None:
    assert cli("up --workers 1").code == 0
    everything = now(cli).processes
    os.kill(process(cli, "supervisor").pid, signal.SIGKILL)

    down = cli("down")

    assert down.code == 0
    eventually(lambda: not any(map(lives, everything)), within_s=10, what="nothing alive")


@pytest.mark.full
def test_two_stacks_run_side_by_side(cli: Cli, tmp_path: Path) -> None:
    other = Cli(Settings(home=tmp_path / "other"), tmp_path)
    other.env = cli.env
    try:
        assert cli("up --workers 1").code == 0
        assert other("up --workers 1").code == 0
        with Client(Settings.load({"home": cli.settings.home}, environ={})) as client:
            put_points_and_function(cli, client)

        assert cli("fn list -q").out.split() == ["slow"]
        assert other("fn list -q").out.split() == []
        assert other("down").code == 0
        assert cli("status").code == 0
    finally:
        other("down")


def put_points_and_function(cli: Cli, client: Client) -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(400, 8)).astype(np.float32)
    labels = (data.sum(1) > 0).astype(np.int64)
    client.datasets.create(
        "points", train_data=data[:300], train_labels=labels[:300], test_data=data[300:],
        test_labels=labels[300:],
    )  # fmt: skip
    for name in ("slow.py", "tiny.py"):
        text = (FUNCTIONS / name).read_text()
        (cli.cwd / name).write_text(text if name == "slow.py" else text.split("def main")[0])
    code = cli.cwd / "code"
    code.mkdir(exist_ok=True)
    for name in ("slow.py", "tiny.py"):
        (cli.cwd / name).rename(code / name)
    client.functions.create("slow", code, check=False)
