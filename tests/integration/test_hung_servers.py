"""Commands whose server takes connections and never answers, as one that was stopped does."""

import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.objects.store import ObjectStore
from brokers.settings import Secret, Settings, child_environment
from tests.cli import Cli
from tests.eventually import eventually


@pytest.fixture
def hung(s3_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        url = Secret(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        # A bucket of its own: doctor looks at all that is in one, and other tests leave damage.
        settings = s3_settings.with_changes(
            home=tmp_path, broker_url=url, state_url=url, s3_bucket=f"hung-{uuid.uuid4().hex[:8]}"
        )
        ObjectStore(settings).ensure_bucket()
        yield settings


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("task list", "error: interrupted"),
        ("train -f f -d d --id mine", "interrupted while job mine was submitted"),
    ],
)
def test_command_says_what_it_waits_for_and_can_be_interrupted(
    hung: Settings, tmp_path: Path, line: str, said: str
) -> None:
    told = tmp_path / "stderr"
    with told.open("wb") as err:
        command = subprocess.Popen(
            [sys.executable, "-P", "-m", "kubeml", *line.split()],
            cwd=tmp_path, env=child_environment(hung), stdout=subprocess.PIPE, stderr=err,
        )  # fmt: skip
    eventually(lambda: "still trying" in told.read_text(), within_s=20, what="a warning")

    command.send_signal(signal.SIGINT)

    out, _ = command.communicate(timeout=20)
    assert (command.returncode, out) == (130, b"")
    assert "does not answer" in told.read_text()
    assert said in told.read_text()
    assert "Traceback" not in told.read_text()


def test_doctor_asks_a_server_that_hangs_once(hung: Settings, tmp_path: Path) -> None:
    begun = time.monotonic()

    ran = Cli(hung, tmp_path)("doctor --json")

    bad = [row for row in ran.json if row["level"] == "bad"]
    assert [row["check"] for row in bad] == ["redis"], ran.out
    assert "does not answer" in bad[0]["found"]
    assert "s3" in {row["check"] for row in ran.json if row["level"] == "ok"}
    # One question waits 2 s; each of a client's own would take 40 s.
    assert time.monotonic() - begun < 30
