"""``kubeml probe`` on real processes: alive is who makes progress, ready is who can work."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.alive_files import signs
from brokers.settings import Settings
from kubeml.ops.probe import Unwell, check_alive
from kubeml.stack.servers import ServerPlan, valkey_command, wait_for_valkey
from tests.cli import Cli, Ran
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.processes import end, start_server

ROLES = ("ps", "control", "worker")


class Pool:
    """A pool with a Valkey server of its own, which may be taken away."""

    def __init__(self, base: Settings, folder: Path) -> None:
        self.plan, self.folder = ServerPlan.make(), folder
        url = self.plan.settings(base).broker_url
        self.settings = base.with_changes(home=folder / "home", broker_url=url, state_url=url)
        self.valkey: subprocess.Popen[bytes] | None = None
        self.cluster = Cluster(self.settings)
        self.cli = Cli(self.settings, folder)

    def start_valkey(self) -> None:
        command = valkey_command(self.plan, self.folder / "valkey")
        self.valkey = start_server(command, self.folder / "valkey" / "log")
        wait_for_valkey(self.settings, within_s=20, is_up=lambda: True)

    def stop_valkey(self) -> None:
        if self.valkey is not None:
            end(self.valkey)
            self.valkey = None


@pytest.fixture(scope="module")
def pool(s3_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    pool = Pool(s3_settings, tmp_path_factory.mktemp("probe"))
    try:
        pool.start_valkey()
        pool.cluster.start(workers=1)
        eventually(
            lambda: pool.cli("probe ps --ready").code == 0, within_s=20, what="parameter server"
        )
        yield pool
    finally:
        pool.cluster.close()
        pool.stop_valkey()


@pytest.mark.parametrize("role", ROLES)
def test_process_at_work_is_alive_and_ready(pool: Pool, role: str) -> None:
    alive, ready = pool.cli(f"probe {role}"), pool.cli(f"probe {role} --ready")

    assert (alive.code, ready.code) == (0, 0), alive.err + ready.err
    assert "progress" in alive.out


def test_nobody_is_alive_in_another_home(pool: Pool, tmp_path: Path) -> None:
    cli = Cli(pool.settings.with_changes(home=tmp_path), tmp_path)

    nobody = cli("probe worker")

    assert nobody.code == 1
    assert "no worker is at work" in nobody.err
    assert cli("probe cook").code == 2


@pytest.mark.parametrize("role", ["ps", pytest.param("control", marks=pytest.mark.full)])
def test_stopped_process_is_not_alive_although_its_pid_is(pool: Pool, role: str) -> None:
    (sign,) = signs(pool.settings.home, role)
    os.kill(sign.pid, signal.SIGSTOP)
    try:
        stuck = eventually(
            lambda: (ran := pool.cli(f"probe {role} --within 3")).code == 1 and ran,
            within_s=20, what="a stale sign",
        )  # fmt: skip
    finally:
        os.kill(sign.pid, signal.SIGCONT)

    assert "no progress" in stuck.err
    eventually(
        lambda: pool.cli(f"probe {role} --within 3 --ready").code == 0,
        within_s=20, what="progress after SIGCONT",
    )  # fmt: skip


@pytest.mark.full
def test_server_that_is_away_makes_nobody_dead_but_nobody_ready(pool: Pool) -> None:
    pool.stop_valkey()
    try:
        # Longer than any of them goes without progress in good times.
        eventually(lambda: _seconds_since(pool) > 5, within_s=20, what="five seconds without it")
        alive = {role: pool.cli(f"probe {role} --within 5") for role in ROLES}
        ready = {role: pool.cli(f"probe {role} --ready") for role in ROLES}
    finally:
        pool.start_valkey()

    assert {role: ran.code for role, ran in alive.items()} == dict.fromkeys(ROLES, 0), alive
    assert {role: ran.code for role, ran in ready.items()} == dict.fromkeys(ROLES, 5)
    for role in ROLES:
        eventually(
            lambda role=role: pool.cli(f"probe {role} --ready").code == 0,  # type: ignore[misc]
            within_s=30, what=f"{role} to be ready again",
        )  # fmt: skip


def test_server_that_hangs_makes_nobody_dead(pool: Pool) -> None:
    assert pool.valkey is not None
    pool.valkey.send_signal(signal.SIGSTOP)
    try:
        # What connected before waits for an answer, as long as its time-out is: that is late.
        late = {
            role: eventually(
                lambda role=role: "does not answer" in (ran := _probe(pool, role)).out and ran,  # type: ignore[misc]
                within_s=40, what=f"a {role} that waits for the server",
            )
            for role in ("ps", "control")
        }  # fmt: skip
    finally:
        pool.valkey.send_signal(signal.SIGCONT)

    assert {ran.code for ran in late.values()} == {0}
    for role in ROLES:
        eventually(
            lambda role=role: pool.cli(f"probe {role} --within 3 --ready").code == 0,  # type: ignore[misc]
            within_s=30, what=f"{role} to be ready again",
        )  # fmt: skip


def _probe(pool: Pool, role: str) -> Ran:
    """A probe that must not say dead."""
    ran = pool.cli(f"probe {role} --within 2")
    assert ran.code == 0, ran.err
    return ran


def test_s3_that_hangs_excuses_who_is_late(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:
        where = f"http://127.0.0.1:{hung.getsockname()[1]}"
        settings = pool.settings.with_changes(s3_endpoint_url=where)
        (sign,) = signs(settings.home, "ps")
        os.kill(sign.pid, signal.SIGSTOP)
        try:
            eventually(
                lambda: signs(settings.home, "ps")[0].age_s > 3, within_s=20, what="a stale sign"
            )
            (living,) = check_alive(settings, "ps", within_s=3)
            (again,) = check_alive(settings, "ps", within_s=3)
            eventually(
                lambda: signs(settings.home, "ps")[0].age_s > 3, within_s=20, what="a stale sign"
            )
            with pytest.raises(Unwell, match="although its servers answer"):
                check_alive(pool.settings, "ps", within_s=3)
        finally:
            os.kill(sign.pid, signal.SIGCONT)

    assert where in living.waits_for
    # Its time began anew, so the servers were not asked.
    assert (again.waits_for, again.sign.age_s < 3) == ("", True)


def _seconds_since(pool: Pool) -> float:
    """How long the server's socket is gone: its log's last line was its farewell."""
    return time.time() - (pool.folder / "valkey" / "log").stat().st_mtime


def test_process_that_ended_leaves_no_sign(pool: Pool) -> None:
    assert pool.cluster.terminate("worker-1") == 0

    assert list(signs(pool.settings.home, "worker")) == []
    assert not list((pool.settings.home / "alive").glob("worker-*"))
    assert pool.cli("probe worker").code == 1
