"""A pool of real processes for tests: parameter servers, control workers, training workers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from brokers.pool.presence import alive_nodes
from brokers.settings import Secret, Settings, child_environment
from brokers.state.connections import state_client
from kubeml.client.client import Client
from tests.eventually import eventually


class Cluster:
    """Starts and kills processes on one set of servers. Everything ends with ``close``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = Path(settings.home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        #: Where in its log a process's own lines begin: earlier ones of that name wrote there too.
        self._log_starts: dict[str, int] = {}
        self.client = Client(settings)
        self._redis = state_client(settings)

    def start(self, *, workers: int) -> None:
        """A whole pool: one parameter server, one control worker, so many training workers."""
        self.start_ps()
        self.start_control()
        for number in range(workers):
            self.start_worker(f"worker-{number + 1}", wait=False)
        for number in range(workers):
            self.wait_for(f"worker-{number + 1}")
        self.wait_for("control")

    def start_ps(self, name: str = "ps", *, env: dict[str, str] | None = None) -> None:
        """One parameter server."""
        code = (
            "from brokers.settings import Settings; from kubeml import logs;"
            "from kubeml.server.server import main; settings = Settings.load();"
            "logs.set_up(settings); main(settings)"
        )
        self._spawn(name, code, env)

    def start_control(self, name: str = "control", *, env: dict[str, str] | None = None) -> None:
        """One control worker."""
        self._spawn(name, _role_code("exec_control", name), env)

    def start_worker(
        self,
        name: str,
        *,
        env: dict[str, str] | None = None,
        wait: bool = True,
        inside: Sequence[str] = (),
    ) -> None:
        """One training worker; ``inside``: a command that becomes what stands behind it."""
        self._spawn(name, _role_code("exec_worker", name), env, inside)
        if wait:
            self.wait_for(name)

    def wait_for(self, name: str) -> None:
        """Wait until a Celery worker has announced itself, and a training worker has torch."""

        def is_there() -> bool:
            assert self.processes[name].poll() is None, self.log(name)
            node = next((n for n in alive_nodes(self._redis) if n.name == name), None)
            if node is None:
                return False
            lines = (self.home / f"{name}.log").read_bytes()[self._log_starts[name] :]
            return node.role != "worker" or b"ready for work" in lines

        eventually(is_there, within_s=60, what=f"{name} to announce itself")

    def kill(self, name: str) -> None:
        """SIGKILL a process and its children, as a machine that dies would."""
        process = self.processes.pop(name)
        for pid in [process.pid, *(child.pid for child in _children(process.pid))]:
            _signal(pid, signal.SIGKILL)
        process.wait(10)

    def terminate(self, name: str, *, within_s: float = 30) -> int:
        """SIGTERM a process and wait for its end; returns its exit status."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(within_s)

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """SIGKILL whatever is left."""
        for name in list(self.processes):
            if self.processes[name].poll() is None:
                self.kill(name)
        self.client.close()
        self._redis.close()

    def _spawn(
        self, name: str, code: str, env: dict[str, str] | None, inside: Sequence[str] = ()
    ) -> None:
        with (self.home / f"{name}.log").open("ab") as log:
            self._log_starts[name] = log.tell()
            self.processes[name] = subprocess.Popen(
                [*inside, sys.executable, "-c", code],
                env=child_environment(self.settings) | (env or {}),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )


def on_database(settings: Settings, number: int) -> Settings:
    """The same servers, and a database that no other pool of the run uses.

    Workers of one pool must not take another one's dispatches, nor its parameter servers look
    after the jobs that tests of single scripts leave behind (those are in database 0).
    """
    url = Secret(f"{settings.broker_url.removesuffix('/0')}/{number}")
    return settings.with_changes(broker_url=url, state_url=url)


def running_cluster(settings: Settings, *, workers: int) -> Iterator[Cluster]:
    """A pool for the length of a fixture; its logs are shown if a test fails."""
    cluster = Cluster(settings)
    try:
        cluster.start(workers=workers)
        yield cluster
    finally:
        cluster.close()


def _role_code(function: str, name: str) -> str:
    return (
        "from brokers.settings import Settings; from kubeml.stack import roles;"
        f"roles.{function}(Settings.load(), name={name!r})"
    )


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
