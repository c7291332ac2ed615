"""Workers pinned to GPUs: real processes, on devices that only the environment knows of."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from brokers.pool.node import Node
from brokers.pool.presence import alive_nodes
from brokers.settings import Settings, child_environment
from brokers.state.connections import state_client
from kubeml.machine import VISIBLE
from tests.cli import Cli
from tests.cluster import on_database
from tests.eventually import eventually

#: What each Celery child says of itself, in its own environment.
REPORT = re.compile(r"ready for work on GPU (\S+)")


@pytest.fixture
def cli(base_settings: Settings, tmp_path: Path) -> Iterator[Cli]:
    """The command on a home of its own, where two GPUs are said to be."""
    command = Cli(Settings(home=tmp_path / "home"), tmp_path)
    command.env = dict.fromkeys(("KUBEML_BROKER_URL", "KUBEML_STATE_URL"), "") | {VISIBLE: "0,1"}
    yield command
    command("down")


class Group:
    """``kubeml worker --device gpu`` as a process."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.log = folder / "log"
        self._client = state_client(settings)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kubeml", "worker", "--device", "gpu",
                 "--slots-per-gpu", "1", "--name", "pinned"],
                env=child_environment(settings) | {VISIBLE: "4,GPU-11"},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
            )  # fmt: skip

    def nodes(self) -> dict[str, Node]:
        """Its workers, as they announce themselves, by name."""
        return {n.name: n for n in alive_nodes(self._client) if n.name.startswith("pinned")}

    def reports(self) -> list[str]:
        """The GPUs its Celery children have reported."""
        return sorted(REPORT.findall(self.log.read_text(errors="replace")))

    def family(self) -> list[psutil.Process]:
        """All processes under it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        """End everything."""
        family = self.family() if self.process.poll() is None else []
        self.process.kill()
        self.process.wait(10)
        for process in family:
            if process.is_running():
                process.kill()
        self._client.close()


@pytest.fixture
def group(redis_url: str, base_settings: Settings, tmp_path: Path) -> Iterator[Group]:
    """A worker on two GPUs."""
    assert redis_url
    made = Group(on_database(base_settings, 9), tmp_path)
    yield made
    made.close()


def test_worker_on_two_gpus_is_two_workers_each_pinned_to_one(group: Group) -> None:
    eventually(lambda: len(group.reports()) == 2, within_s=60, what="both children")
    eventually(lambda: len(group.nodes()) == 2, within_s=10, what="both announcements")
    before = group.nodes()
    reports = group.reports()

    os.kill(before["pinned-1"].pid, signal.SIGKILL)

    eventually(lambda: len(group.reports()) == 3, within_s=60, what="another child")
    eventually(
        lambda: group.nodes()["pinned-1"].pid != before["pinned-1"].pid,
        within_s=10, what="its announcement",
    )  # fmt: skip
    family = group.family()
    group.process.send_signal(signal.SIGTERM)
    assert reports == ["4", "GPU-11"]
    assert {name: node.gpu for name, node in before.items()} == {
        "pinned-1": "4", "pinned-2": "GPU-11",
    }  # fmt: skip
    assert group.reports() == ["4", "4", "GPU-11"]
    assert group.process.wait(30) == 0
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert group.nodes() == {}


@pytest.mark.full
def test_stack_has_a_worker_for_each_slot_of_each_gpu(cli: Cli) -> None:
    started = cli("up --device gpu --slots-per-gpu 2")

    status = cli("status --json").json
    shown = cli("status").out
    again = cli("up --device cpu")
    eventually(lambda: all(reports(cli)), within_s=60, what="every child")
    doctor = cli("doctor").out

    assert started.code == 0, started.err
    workers = [p for p in status["processes"] if p["role"] == "worker"]
    assert [p["device"] for p in workers] == ["gpu 0", "gpu 1", "gpu 0", "gpu 1"]
    assert [reported for (reported,) in reports(cli)] == ["0", "1", "0", "1"]
    for worker in workers:
        for child in psutil.Process(worker["pid"]).children(recursive=True):
            assert f"gpu {child.environ()[VISIBLE]}" == worker["device"]
    assert all(p["device"] == "" for p in status["processes"] if p["role"] != "worker")
    assert "gpu 1" in shown
    assert "its workers have a gpu" in again.err
    assert "4 (2 on gpu 0, 2 on gpu 1)" in doctor


def reports(cli: Cli) -> list[list[str]]:
    """The GPUs that the children of each worker of the stack have reported."""
    logs = [cli.settings.home / "logs" / f"worker-{number}.log" for number in (1, 2, 3, 4)]
    return [REPORT.findall(log.read_text(errors="replace")) for log in logs]


@pytest.mark.parametrize(
    ("line", "visible", "code", "fault"),
    [
        ("up --device gpu", "", 4, "no GPU can be used here"),
        ("worker --device gpu", "-1", 4, "no GPU can be used here"),
        ("up --slots-per-gpu 2", "0,1", 2, "--slots-per-gpu is 2 with --device cpu"),
        ("worker --device cpu --slots-per-gpu 1", "0", 2, "--slots-per-gpu is 1 with --device cpu"),
        ("up --device gpu --workers 3", "0,1", 2, "--workers is 3, expected 2 at most"),
        ("up --device gpu --slots-per-gpu 0", "0,1", 2, "--slots-per-gpu"),
        ("worker --device tpu", "0", 2, "'tpu', expected cpu or gpu"),
    ],
)
def test_bad_input_starts_nothing(cli: Cli, line: str, visible: str, code: int, fault: str) -> None:
    cli.env[VISIBLE] = visible

    ran = cli(line)

    assert ran.code == code, ran.err
    assert fault in ran.err
    assert "Traceback" not in ran.err
    assert not (cli.settings.home / "status.json").exists()
    assert not (cli.settings.home / "logs").exists()
