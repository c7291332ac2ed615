"""``kubeml flower``: the real Flower on a real pool, over HTTP."""

import base64
import html
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from brokers.settings import Settings, child_environment
from kubeml.stack.servers import free_ports
from tests.cli import Cli
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.integration.conftest import Submit
from tests.processes import end

PASSWORD = "somebody:a-long-password"

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""


@dataclass
class Flower:
    """A Flower process and its address."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str, *, user: str = PASSWORD, data: bytes | None = None) -> tuple[int, str]:
        """Status and text of a page; a POST if there is data."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        if user:
            request.add_header("Authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/healthcheck")[0] == 200
        except OSError:
            return False


def start_flower(settings: Settings, folder: Path, *, auth: str = PASSWORD) -> Flower:
    """Start one and wait until it answers."""
    (port,), log = free_ports(1), folder / "flower.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kubeml", "flower", "--port", str(port)],
            env=child_environment(settings.with_changes(home=folder))
            | {"PYTHONPATH": str(Path(__file__).parents[2]), "KUBEML_FLOWER_AUTH": auth},
            cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    flower = Flower(process, port, log)
    try:
        eventually(flower.is_up, within_s=30, what="answer of Flower")
    except BaseException:
        end(process)
        raise
    return flower


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flower")


@pytest.fixture(scope="module")
def flower(cluster: Cluster, home: Path) -> Iterator[Flower]:
    flower = start_flower(cluster.settings, home)
    try:
        yield flower
    finally:
        if flower.process.poll() is None:
            end(flower.process)


def tasks_of(flower: Flower, job_id: str) -> dict[str, Any]:
    """The job's tasks by their ids, once Flower has seen that they all ended."""

    def ended() -> dict[str, Any]:
        tasks = json.loads(flower.get("/api/tasks?limit=500")[1])
        mine = {name: task for name, task in tasks.items() if name.startswith(f"{job_id}-")}
        done = [t for t in mine.values() if t["state"] == "SUCCESS"]
        kinds = {t["name"] for t in done}
        complete = {"kubeml.train", "kubeml.validate", "kubeml.schedule"} <= kinds
        return mine if complete and len(done) == len(mine) else {}

    return eventually(ended, within_s=20, what="ended tasks of the job in Flower")


def test_a_trainings_tasks_say_job_epoch_stage_slots_and_rounds(
    flower: Flower, submit: Submit
) -> None:
    job = submit("tiny", epochs=2, parallelism=2, k=5)
    assert job.wait(60).epoch == 2

    tasks = tasks_of(flower, job.id)

    trained = {n: t for n, t in tasks.items() if n.startswith(f"{job.id}-e2-train")}
    assert trained
    for task in trained.values():
        assert task["name"] == "kubeml.train"
        assert task["args"] == f"(job={job.id}, epoch=2, stage=train)"
    handed_in = " ".join(str(task["result"]) for task in trained.values())
    assert "epoch 2: " in handed_in
    assert "slot 0 round" in handed_in
    assert "slot 1 round" in handed_in
    (validated, *_) = [t for n, t in tasks.items() if "-e2-validate" in n]
    assert validated["args"] == f"(job={job.id}, epoch=2, stage=validate)"
    # And on the page of a task, which is what people see.
    name = next(iter(trained))
    page = html.unescape(flower.get(f"/task/{name}")[1])
    assert f"(job={job.id}, epoch=2, stage=train)" in page
    assert "epoch 2: slot" in page


@pytest.mark.parametrize("path", ["/", "/tasks", "/api/tasks", "/metrics", "/broker"])
def test_nothing_is_shown_without_the_password(flower: Flower, path: str) -> None:
    for stranger in ("", "somebody:guessed"):
        status, text = flower.get(path, user=stranger)
        assert status == 401
        assert "kubeml" not in text

    assert flower.get(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/task/async-apply/kubeml.train",
        "/api/task/send-task/kubeml.train",
        "/api/task/revoke/some-id",
        "/api/worker/shutdown/worker-1@host",
    ],
)
def test_nothing_can_be_changed_even_with_the_password(flower: Flower, path: str) -> None:
    status, text = flower.get(path, data=b'{"args": []}')

    assert (status, "ead only" in text) == (403, True)


def test_password_is_in_no_argument_and_no_log(flower: Flower) -> None:
    process = psutil.Process(flower.process.pid)
    shown = " ".join(process.cmdline()) + flower.log.read_text()

    assert "tasks.flower_app" in shown
    assert "a-long-password" not in shown


def test_probe_of_flower_tells_whether_it_answers(
    flower: Flower, cluster: Cluster, tmp_path: Path
) -> None:
    cli = Cli(cluster.settings, tmp_path)
    (nobody,) = free_ports(1)

    assert cli(f"probe flower --port {flower.port}").code == 0
    assert cli(f"probe flower --port {nobody}").code == 5


def test_without_a_password_it_binds_loopback_alone(cluster: Cluster, tmp_path: Path) -> None:
    cli = Cli(cluster.settings.with_changes(home=tmp_path), tmp_path)

    refused = cli("flower --host 0.0.0.0")

    assert refused.code == 2
    assert "KUBEML_FLOWER_AUTH" in refused.err
    assert not (tmp_path / "flower").exists()


def test_what_it_saw_is_there_after_sigterm_and_a_new_start(
    flower: Flower, cluster: Cluster, submit: Submit, home: Path
) -> None:
    job = submit("tiny")
    job.wait(60)
    before = tasks_of(flower, job.id)

    flower.process.terminate()
    code = flower.process.wait(15)
    again = start_flower(cluster.settings, home)

    try:
        assert code == 0
        assert before.keys() <= tasks_of(again, job.id).keys()
    finally:
        end(again.process)


@pytest.mark.full
@pytest.mark.skipif(not BROWSER, reason="there is no browser here: apt install chromium")
def test_a_browser_shows_a_finished_trainings_tasks(
    cluster: Cluster, submit: Submit, tmp_path: Path
) -> None:
    # Headless browsers cannot be told a password; without one, Flower is at loopback alone.
    flower = start_flower(cluster.settings, tmp_path, auth="")
    try:
        job = submit("tiny", epochs=2, parallelism=2, k=5)
        assert job.wait(60).epoch == 2
        shown = eventually(
            lambda: seen_in_browser(flower, job.id, tmp_path), within_s=60, what="all ended tasks"
        )
    finally:
        end(flower.process)

    # Name, arguments, state and result, as people see them in the table.
    assert "kubeml.train" in shown
    assert f"(job={job.id}, epoch=2, stage=train)" in shown
    assert "SUCCESS" in shown
    assert re.search(r"epoch 2: slot \d round", shown)
    assert (tmp_path / "tasks.png").read_bytes().startswith(b"\x89PNG")


def seen_in_browser(flower: Flower, job_id: str, folder: Path) -> str:
    """The page of tasks once all those of the second epoch have ended in it, else ''."""
    url = f"http://127.0.0.1:{flower.port}/tasks"
    browser = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/browser",
        "--virtual-time-budget=10000", "--hide-scrollbars", "--window-size=1900,820",
    ]  # fmt: skip
    page = subprocess.run(
        [*browser, "--dump-dom", url], capture_output=True, timeout=50, check=True
    )
    text = html.unescape(page.stdout.decode())
    rows = [row for row in text.split("<tr")[1:] if f"{job_id}-e2-" in row]
    if "-validate" not in "".join(rows) or not all("SUCCESS" in row for row in rows):
        return ""
    subprocess.run(
        [*browser, f"--screenshot={folder}/tasks.png", url],
        capture_output=True, timeout=50, check=True,
    )  # fmt: skip
    return text
