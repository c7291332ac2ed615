"""The embedded stack where things are not as they should be: names, paths, pids, ports, signals."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from brokers.settings import PROFILE_NAME, Settings
from kubeml.errors import Conflict
from kubeml.stack.child import Child, end_all
from kubeml.stack.home import GAVE_WAY, LOCK_NAME, STATUS_NAME, hold_lock, is_running, write_private
from kubeml.stack.processes import RUN_MARK, ProcessInfo, is_alive, kill_survivors
from kubeml.stack.servers import ServerPlan, are_free
from kubeml.stack.stack import _wait_until_ready, status
from tests.cli import Ran
from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
CODE_THAT_IDLES = "import signal; signal.pause()"


class StackHome:
    """A home for one stack, and the command line run in a directory of choice."""

    def __init__(self, home: Path, cwd: Path) -> None:
        self.home, self.cwd = home, cwd
        self.env: dict[str, str] = {"PYTHONPATH": str(ROOT), "KUBEML_HOME": str(home)}

    def start(self, line: str) -> "subprocess.Popen[str]":
        # With -P, as the installed command, which does not look for modules where it is called; and
        # with Ctrl-C, which a shell takes from what it starts in the background (this suite, say).
        return subprocess.Popen(
            ["env", "--default-signal=INT", sys.executable, "-P", "-m", "kubeml", *line.split()],
            cwd=self.cwd, env=os.environ | self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, line: str) -> Ran:
        process = self.start(line)
        out, err = process.communicate(timeout=90)
        return Ran(process.returncode, out, err)

    def processes(self) -> dict[str, ProcessInfo]:
        return {p.name: p for p in status(Settings(home=self.home)).processes}

    def settings(self) -> Settings:
        return Settings.load({"home": self.home}, environ={})


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StackHome]:
    # Longer than any socket path may be.
    home = tmp_path / ("a long name " * 10)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    made = StackHome(home, cwd)
    yield made
    made("down")


@pytest.mark.full
def test_stack_starts_in_a_long_home_from_a_folder_of_modules_named_as_ours(
    stack: StackHome,
) -> None:
    for name in ("tasks", "kubeml", "brokers", "celery", "redis", "json"):
        (stack.cwd / f"{name}.py").write_text(f"raise RuntimeError('the user has a {name}.py')")
    stack.env |= {
        "AWS_PROFILE": "of-another-cloud",
        "AWS_ACCESS_KEY_ID": "theirs",
        "AWS_SECRET_ACCESS_KEY": "theirs",
    }

    begun_at = time.time()
    started = stack("up --workers 1")

    assert started.code == 0, started.err
    processes = stack.processes()
    assert {p.state for p in processes.values()} == {"running"}
    assert {p.restarts for p in processes.values()} == {0}
    assert {ip for p in processes.values() for ip in addresses(p)} == {"127.0.0.1"}
    ports = json.loads((stack.home / "stack.json").read_text())["s3_ports"].values()
    assert stack("down").code == 0
    assert [p for p in processes.values() if is_alive(p)] == []
    sockets = [s for port in ports for s in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
    # Of a server that had one of these ports before, and was killed, some may lie about.
    assert [s for s in sockets if s.stat().st_mtime >= begun_at - 1] == []


def test_damaged_profile_is_named_and_down_works_all_the_same(stack: StackHome) -> None:
    assert stack("up --workers 1").code == 0
    processes = stack.processes()
    (stack.home / PROFILE_NAME).write_text('{"settings": {"brok')

    shown, down = stack("status"), stack("down")

    assert (shown.code, down.code) == (2, 0), down.err
    assert str(stack.home / PROFILE_NAME) in shown.err
    assert "kubeml down, then up again" in shown.err
    assert "kubeml is down" in down.err
    assert [p for p in processes.values() if is_alive(p)] == []
    assert not (stack.home / PROFILE_NAME).exists()


@pytest.mark.full
def test_of_several_ups_at_once_one_starts_the_stack_and_all_find_it(stack: StackHome) -> None:
    ups = [stack.start("up --workers 1") for _ in range(3)]

    said = [up.communicate(timeout=90)[1] for up in ups]

    assert [up.returncode for up in ups] == [0, 0, 0], said
    assert sum("kubeml is up" in text for text in said) == 1
    assert sum("running already" in text for text in said) == 2
    processes = stack.processes()
    late = subprocess.run(
        [
            sys.executable, "-m", "kubeml.stack.supervisor", "--min-workers", "1",
            "--max-workers", "1",
        ],
        env=os.environ | stack.env, cwd=stack.cwd, check=False, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip
    assert late.returncode == 3
    assert stack.processes() == processes
    assert all(is_alive(p) for p in processes.values())
    assert supervisors_of(stack.home) == [processes["supervisor"].pid]


def test_servers_that_crash_come_back_at_the_same_ports_with_their_data(stack: StackHome) -> None:
    from brokers.objects.store import ObjectStore
    from brokers.state.connections import state_client
    from kubeml.errors import KubemlError

    assert stack("up --workers 1").code == 0
    before = stack.processes()
    client, objects = state_client(stack.settings()), ObjectStore(stack.settings())
    client.set("kept", "yes")
    objects.put("kept", b"yes")
    eventually(
        lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0,
        within_s=5,
        what="append-only file on disk",
    )
    for name in ("valkey", "s3"):
        os.kill(before[name].pid, signal.SIGKILL)

    def is_back() -> bool:
        now = stack.processes()
        if any(now[n].pid in {0, before[n].pid} for n in ("valkey", "s3")):
            return False
        try:
            return bool(objects.get("kept") == b"yes")
        except KubemlError:
            return False

    eventually(is_back, within_s=30, what="both servers")
    assert client.get("kept") == b"yes"
    client.close()
    assert stack.processes()["valkey"].restarts == 1
    assert stack.processes()["s3"].restarts == 1


def test_up_takes_other_ports_when_its_own_are_taken_and_keeps_the_data(stack: StackHome) -> None:
    from brokers.objects.store import ObjectStore

    assert stack("up --workers 1").code == 0
    ObjectStore(stack.settings()).put("kept", b"yes")
    old = stack.settings()
    assert stack("down").code == 0
    taken = json.loads((stack.home / "stack.json").read_text())["valkey_port"]
    squatter = subprocess.Popen(
        [sys.executable, "-c", f"import socket,signal;s=socket.create_server(('127.0.0.1',{taken}))"
                               ";print(flush=True);signal.pause()"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert squatter.stdout is not None
        squatter.stdout.readline()

        again = stack("up --workers 1")

        assert again.code == 0, again.err
        assert stack.settings().state_url != old.state_url
        assert ObjectStore(stack.settings()).get("kept") == b"yes"
    finally:
        squatter.kill()
        squatter.communicate()


def test_up_that_is_interrupted_leaves_nothing(stack: StackHome) -> None:
    up = stack.start("up --workers 1")
    eventually(lambda: "valkey" in stack.processes(), within_s=30, what="the first process")
    started = list(stack.processes().values())

    up.send_signal(signal.SIGINT)

    up.communicate(timeout=60)
    assert up.returncode == 130
    assert [p for p in started if is_alive(p)] == []
    assert supervisors_of(stack.home) == []
    assert not (stack.home / PROFILE_NAME).exists()


def test_status_and_down_know_of_nothing_in_an_empty_home(stack: StackHome) -> None:
    seen = stack("status --json")
    down = stack("down")

    assert seen.code == 5
    assert json.loads(seen.out)["processes"] == []
    assert down.code == 0
    assert not stack.home.exists()


def test_doctor_names_each_server_that_does_not_answer_within_ten_seconds(
    stack: StackHome,
) -> None:
    plan = ServerPlan.make()
    stack.env |= {
        "KUBEML_BROKER_URL": f"redis://127.0.0.1:{plan.valkey_port}/0",
        "KUBEML_S3_ENDPOINT_URL": f"http://127.0.0.1:{plan.s3_ports['s3']}",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
    started = time.monotonic()

    doctor = stack("doctor --json")

    assert time.monotonic() - started < 10
    assert doctor.code == 5
    bad = {f["check"]: f["found"] for f in json.loads(doctor.out) if f["level"] == "bad"}
    assert str(plan.valkey_port) in bad["redis"]
    assert str(plan.s3_ports["s3"]) in bad["s3"]


def test_numbers_that_were_given_to_other_processes_since_are_left_alone(tmp_path: Path) -> None:
    # As after a reboot, or in a container started again: same numbers, other processes.
    stranger = idle({})
    try:
        noted = ProcessInfo(
            name="worker-1", role="worker", pid=stranger.pid, started_at=time.time() - 3600,
            state="running", restarts=0,
        )  # fmt: skip
        (tmp_path / STATUS_NAME).write_text(
            json.dumps({"run": "r1", "ready": True, "processes": [asdict(noted)]})
        )

        killed = kill_survivors([noted], run="r1")

        assert killed == 0
        assert stranger.poll() is None
        assert status(Settings(home=tmp_path)).processes == []
    finally:
        stranger.kill()
        stranger.wait()


def test_children_of_a_leader_that_has_gone_are_found_by_their_mark(tmp_path: Path) -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; print(subprocess.Popen([sys.executable,"
                               f"'-c', {CODE_THAT_IDLES!r}], stdout=2).pid, flush=True)"],
        env=os.environ | {RUN_MARK: "r1"}, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert leader.stdout is not None
    orphan = psutil.Process(int(leader.stdout.readline()))
    leader.communicate()
    noted = ProcessInfo(
        name="worker-1", role="worker", pid=leader.pid, started_at=orphan.create_time(),
        state="running", restarts=0,
    )  # fmt: skip

    of_another_run = kill_survivors([noted], run="r2")
    of_this_run = kill_survivors([noted], run="r1")

    assert of_another_run == 0
    assert of_this_run == 1
    eventually(lambda: not is_there(orphan), within_s=5, what="end of the orphan")


def test_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); signal.pause()"
    )
    child = Child(
        name="deaf", role="worker", command=[sys.executable, "-c", code],
        env=dict(os.environ), cwd=tmp_path, log=tmp_path / "log",
    )  # fmt: skip
    child.start()
    eventually(lambda: "deaf" in child.log.read_text(), within_s=10, what="deaf process")

    end_all([child], 0.2)

    assert not child.is_up
    assert not is_alive(child.info())


def test_process_that_keeps_ending_waits_longer_each_time(tmp_path: Path) -> None:
    child = Child(
        name="brief", role="worker", command=[sys.executable, "-c", "raise SystemExit(9)"],
        env=dict(os.environ), cwd=tmp_path, log=tmp_path / "log",
    )  # fmt: skip

    pauses = []
    for _ in range(3):
        child.start()
        eventually(lambda: not child.is_up, within_s=10, what="its end")
        code, pause_s = child.note_end()
        pauses.append(pause_s)

    assert code == 9
    assert pauses == sorted(set(pauses))


def test_lock_is_had_although_somebody_asks_for_the_status_just_then(tmp_path: Path) -> None:
    asking = os.open(tmp_path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.2, os.close, [asking]).start()

    held = hold_lock(tmp_path)

    assert is_running(tmp_path)
    os.close(held)
    assert not is_running(tmp_path)


def test_up_whose_supervisor_gave_way_waits_for_the_other_ones_stack(tmp_path: Path) -> None:
    gave_way = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({GAVE_WAY})"])
    gave_way.wait(10)
    me = psutil.Process()
    other = ProcessInfo(
        name="supervisor", role="supervisor", pid=me.pid, started_at=me.create_time(),
        state="running", restarts=0,
    )  # fmt: skip

    def note(*, ready: bool) -> None:
        wire = {"run": "r1", "ready": ready, "workers": 7, "processes": [asdict(other)]}
        write_private(tmp_path / STATUS_NAME, json.dumps(wire))

    note(ready=False)
    threading.Timer(0.3, lambda: note(ready=True)).start()

    found, is_new = _wait_until_ready(tmp_path, started=gave_way)

    assert found.workers == 7
    assert not is_new


def test_status_that_a_dead_supervisor_left_is_not_believed(tmp_path: Path) -> None:
    gone = idle({})
    started_at = psutil.Process(gone.pid).create_time()
    gone.kill()
    gone.wait()
    dead = ProcessInfo(
        name="supervisor", role="supervisor", pid=gone.pid, started_at=started_at,
        state="running", restarts=0,
    )  # fmt: skip
    wire = {"run": "r1", "ready": True, "workers": 7, "processes": [asdict(dead)]}
    write_private(tmp_path / STATUS_NAME, json.dumps(wire))

    with pytest.raises(Conflict, match="could not be started"):
        _wait_until_ready(tmp_path, started=gone)

    assert status(Settings(home=tmp_path)).running is False


def test_plan_has_a_port_of_its_own_for_everything() -> None:
    plan = ServerPlan.make()

    ports = [plan.valkey_port, *plan.s3_ports.values()]

    assert len(set(ports)) == len(ports) == 11
    assert are_free(ports)
    assert str(plan.password) not in repr(plan)


def idle(env: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", CODE_THAT_IDLES], env=os.environ | env, start_new_session=True
    )


def addresses(info: ProcessInfo) -> set[str]:
    return {
        connection.laddr.ip
        for connection in psutil.Process(info.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def supervisors_of(home: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "kubeml.stack.supervisor" in (process.info["cmdline"] or []):
            try:
                if process.environ().get("KUBEML_HOME") == str(home):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
    return found


def is_there(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
