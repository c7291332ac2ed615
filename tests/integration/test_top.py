"""``kubeml top`` on the real pool: idle, while it trains, on a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from brokers.objects.store import ObjectStore
from brokers.pool.presence import alive_nodes
from brokers.settings import Secret, Settings, child_environment
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.pool.view import PoolView
from tests.cli import Cli
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.faults.tcp_proxy import TcpProxy
from tests.integration.conftest import Submit, put_points, wait_for_round

#: Enough for an epoch of 14 s, so that a test sees a job at training.
ROWS = 20_000


@pytest.fixture(scope="module", autouse=True)
def _many_points(client: Client) -> None:
    put_points(client, rows=ROWS, name="many")


def begin(submit: Submit) -> Job:
    """A job that trains for as long as a test looks at it, on both workers."""
    return submit("slow", dataset="many", epochs=50, k=2, parallelism=2)


def stop(job: Job) -> None:
    """Let the pool be idle again."""
    job.stop()
    eventually(lambda: job.status().end, within_s=30, what="end of the job, on the record")


@pytest.fixture
def job(submit: Submit) -> Iterator[Job]:
    """Such a job, under way."""
    job = begin(submit)
    wait_for_round(job, round_number=3)
    yield job
    stop(job)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that this process asks S3 for, from now on."""
    keys: list[str] = []
    get = ObjectStore.get

    def counted(self: ObjectStore, key: str) -> bytes:
        keys.append(key)
        return get(self, key)

    monkeypatch.setattr(ObjectStore, "get", counted)
    return keys


@pytest.fixture
def cli(cluster: Cluster, tmp_path: Path) -> Cli:
    return Cli(cluster.settings, tmp_path)


def test_picture_of_a_running_job(client: Client, job: Job) -> None:
    def settled() -> PoolView | None:
        view = client.pool()
        mine = [worker for worker in view.workers if worker.job == job.id]
        at_work = [worker for worker in mine if worker.stage == "train"]
        has_speeds = all(worker.samples_per_s for worker in mine)
        is_under_way = any(one.round >= 2 for one in view.jobs)
        return view if len(mine) == 2 and at_work and has_speeds and is_under_way else None

    view = eventually(settled, within_s=30, what="two workers of the job, one of them at work")

    (shown,) = [one for one in view.jobs if one.id == job.id]
    assert (shown.function, shown.state, shown.device) == ("slow", "RUN", "cpu")
    assert (shown.epochs, shown.slots, shown.workers) == (50, 2, 2)
    assert shown.share == 1
    assert shown.progress is not None
    assert 0 < shown.progress < 1
    # A slot has 32 rows in a round, for which it sleeps 40 ms: 1,600 rows a second at the most.
    assert shown.samples_per_s is not None
    assert 0 < shown.samples_per_s < 1600
    assert shown.epoch_left_s is not None
    left = (1 - shown.progress) * ROWS
    assert shown.epoch_left_s == pytest.approx(left / shown.samples_per_s)
    assert shown.left_s is not None
    # Pauses between epochs are added once there was one.
    all_left = left + (50 - shown.epoch) * ROWS
    assert 0.999 < shown.left_s / (all_left / shown.samples_per_s) < 1.5
    for worker in view.workers:
        assert worker.name in {"worker-1", "worker-2"}
        assert worker.host
        assert worker.round is not None
        assert worker.round >= 2
        assert worker.samples_per_s is not None
        assert 0 < worker.samples_per_s < 800
    slots = [worker.slot for worker in view.workers if worker.stage == "train"]
    assert set(slots) <= {0, 1}
    processes = {queue.name: queue.workers for queue in view.queues}
    assert processes["kubeml.train.cpu"] == 2
    assert processes["kubeml.train.gpu"] == 0
    assert (processes["kubeml.control"], processes["kubeml.ps"]) == (1, 1)


def test_json_is_valid_idle_and_training_with_speeds_at_the_first_look(
    client: Client, cli: Cli, submit: Submit
) -> None:
    idle = cli("top --json")
    job = begin(submit)
    wait_for_round(job, round_number=3)

    training = cli("top --json")
    stop(job)

    assert (idle.code, idle.err, training.code, training.err) == (0, "", 0, "")
    assert idle.json["jobs"] == []
    assert [worker["stage"] for worker in idle.json["workers"]] == ["idle", "idle"]
    (shown,) = training.json["jobs"]
    assert shown["id"] == job.id
    assert shown["samples_per_s"] > 0
    assert shown["left_s"] > 0


def test_without_s3_the_live_state_is_shown_all_the_same(
    cluster: Cluster, job: Job, asked: list[str]
) -> None:
    settings = cluster.settings.with_changes(s3_endpoint_url="http://127.0.0.1:1")
    with Client(settings) as client:
        shown = client.pool().jobs[0]
        client.pool()

    assert (shown.id, shown.function, shown.epochs, shown.progress) == (job.id, "", 0, None)
    assert (shown.slots, shown.left_s) == (2, None)
    assert shown.samples_per_s is not None
    # A server that is away is not asked at every look: nobody could press q meanwhile.
    assert len(asked) == 1


def test_what_never_changes_is_read_once(cluster: Cluster, job: Job, asked: list[str]) -> None:
    with Client(cluster.settings) as client:
        looks = [client.pool().jobs[0].function for _ in range(3)]

    assert looks == ["slow"] * 3
    # Its spec, and the manifest of its dataset.
    assert len(asked) == 2


def test_resumed_job_is_shown_with_what_is_asked_for_now(client: Client, job: Job) -> None:
    def epochs_shown() -> int:
        return next((one.epochs for one in client.pool().jobs if one.state == "RUN"), 0)

    before = epochs_shown()
    stop(job)

    job.resume(epochs=70)

    after = eventually(epochs_shown, within_s=30, what="resumed job at training")
    assert (before, after) == (50, 70)


def test_where_stdout_is_no_terminal_it_looks_once(cli: Cli, job: Job) -> None:
    piped, once = cli("top"), cli("top --once")

    for ran in (piped, once):
        assert (ran.code, ran.err) == (0, "")
        assert "\x1b" not in ran.out
        assert re.search(rf"^{job.id} +slow +[A-Z]+ +\d+/50 ", ran.out, re.MULTILINE)
        assert re.search(r"^worker-2 ", ran.out, re.MULTILINE)
        assert re.search(r"^kubeml\.train\.cpu +\d+ +2$", ran.out, re.MULTILINE)


def test_an_interval_of_nothing_is_refused(cli: Cli) -> None:
    assert cli("top --interval 0").code == 2


def test_a_server_that_is_away_is_named(cluster: Cluster, tmp_path: Path) -> None:
    away = Cli(cluster.settings, tmp_path)
    away.env = {"KUBEML_BROKER_URL": "redis://127.0.0.1:1/0", "KUBEML_STATE_URL": ""}

    ran = away("top --json")

    assert (ran.code, ran.out) == (5, "")
    assert "127.0.0.1:1" in ran.err


# -- on a terminal ---------------------------------------------------------------------------


class Terminal:
    """A terminal of 80 x 24 in which ``kubeml top`` runs."""

    def __init__(
        self, settings: Settings, *options: str, env: dict[str, str] | None = None
    ) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self._theirs)
        self.text = ""
        self.process = subprocess.Popen(
            [
                sys.executable, "-P", "-c",
                # Its controlling terminal, so that Ctrl-C is a signal to it.
                "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
                "from kubeml.cli import main; main(['top', *sys.argv[1:]])",
                *options,
            ],
            stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, start_new_session=True,
            cwd=settings.home,
            env={
                name: value
                for name, value in child_environment(settings).items()
                if name not in {"CI", "NO_COLOR", "COLUMNS", "LINES"}
            }
            | {"TERM": "xterm-256color"} | (env or {}),
        )  # fmt: skip

    def wait_for(self, text: str, *, within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            self._read(0.1)

    def screen(self) -> str:
        """The last picture that is there as a whole."""
        self._read(0.1)
        pictures = self.text.split("\x1b[H")
        return pictures[-2] if len(pictures) > 1 else ""

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def end(self, *, within_s: float = 15) -> int:
        deadline = time.monotonic() + within_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.1)
        self._read(0.1)
        return self.process.wait()

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, within_s: float) -> None:
        if select.select([self._ours], [], [], within_s)[0]:
            self.text += os.read(self._ours, 1 << 16).decode(errors="replace")


@pytest.fixture
def terminal(cluster: Cluster) -> Iterator[Terminal]:
    terminal = Terminal(cluster.settings, "--interval", "0.1")
    yield terminal
    terminal.close()


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_live_view_is_left_by_a_key(terminal: Terminal, key: bytes) -> None:
    terminal.wait_for("worker-2")
    assert "\x1b[?1049h" in terminal.text
    assert not terminal.is_as_before()

    terminal.press(key)

    assert terminal.end() == 0
    # Back on the first screen, with nothing left on it and keys as they were.
    assert terminal.text.rpartition("\x1b[?1049l")[2].strip() == ""
    assert terminal.is_as_before()


def test_live_view_follows_the_pool(terminal: Terminal, submit: Submit) -> None:
    terminal.wait_for("no jobs under way")

    job = begin(submit)

    terminal.wait_for(job.id)
    terminal.wait_for("train")
    stop(job)
    terminal.text = ""
    terminal.wait_for("no jobs under way")


def test_live_view_outlives_an_outage(cluster: Cluster) -> None:
    url = str(cluster.settings.state_url)
    port = urlsplit(url).port
    assert port is not None
    proxy = TcpProxy(port)
    behind = Secret(url.replace(f":{port}", f":{proxy.port}"))
    settings = cluster.settings.with_changes(state_url=behind, broker_url=behind)
    terminal = Terminal(settings, "--interval", "0.1")
    try:
        terminal.wait_for("worker-2")

        proxy.cut(refuse=True)
        terminal.wait_for("redis at redis://")
        # The last picture stays.
        assert "worker-2" in terminal.screen()
        proxy.heal()

        eventually(
            lambda: "worker-2" in (now := terminal.screen()) and "redis at" not in now,
            within_s=30, what="picture without trouble",
        )  # fmt: skip
        terminal.press(b"q")
        assert terminal.end() == 0
    finally:
        terminal.close()
        proxy.close()


def test_sigterm_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.wait_for("worker-2")

    terminal.process.terminate()

    assert terminal.end() == 143
    assert "\x1b[?1049l" in terminal.text
    assert terminal.is_as_before()


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}], ids=["CI", "dumb"])
def test_where_nobody_looks_it_prints_once(cluster: Cluster, env: dict[str, str]) -> None:
    terminal = Terminal(cluster.settings, env=env)
    try:
        assert terminal.end() == 0
        assert "worker-2" in terminal.text
        assert "\x1b[?1049h" not in terminal.text
    finally:
        terminal.close()


def test_no_color_is_heeded(cluster: Cluster) -> None:
    terminal = Terminal(cluster.settings, "--once", env={"NO_COLOR": "1"})
    try:
        assert terminal.end() == 0
        assert re.findall(r"\x1b\[[0-9;]*3[0-9]m", terminal.text) == []
    finally:
        terminal.close()


def test_worker_without_a_name_is_one_worker(
    cluster: Cluster, client: Client, submit: Submit
) -> None:
    cluster._spawn("nameless", _NAMELESS, None)
    try:
        eventually(
            lambda: len(alive_nodes(client.backends.redis, role="worker")) == 3, within_s=60,
            what="announcement of the nameless one",
        )  # fmt: skip
        job = submit("slow", dataset="many", epochs=50, k=2, parallelism=3)

        def at_work() -> bool:
            workers = [w for w in client.pool().workers if w.job == job.id]
            names = {worker.name for worker in workers}
            assert all(worker.host for worker in workers), workers
            return any(name.startswith("worker-") and name not in _NAMED for name in names)

        eventually(at_work, within_s=30, what="work of the nameless one")
        assert len(client.pool().workers) == 3
        stop(job)
    finally:
        cluster.terminate("nameless")


_NAMED = {"worker-1", "worker-2"}
_NAMELESS = (
    "from brokers.settings import Settings; from kubeml.stack import roles;"
    "roles.exec_worker(Settings.load())"
)
