"""The embedded stack's supervisor: ``python -m kubeml.supervisor --workers N``.

Starts the servers, then the pool's processes; starts again what ends; stops all on SIGTERM. Every
child leads a process group of its own, so that nothing of it can be left behind.
"""

import argparse
import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from brokers.connections import state_client
from brokers.nodes import alive_nodes
from brokers.settings import PROFILE_NAME, Secret, Settings
from kubeml.errors import KubemlError
from kubeml.servers import (
    ServerPlan,
    are_free,
    s3_command,
    s3_environment,
    valkey_command,
    wait_for_s3,
    wait_for_valkey,
    write_private,
)
from kubeml.stack import STACK_NAME, STATUS_NAME, ProcessInfo, hold_lock

logger = logging.getLogger(__name__)

_START_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1

#: What ends is started again after this long, doubled each time up to the maximum.
_BACKOFF_S, _MAX_BACKOFF_S, _CALM_AFTER_S = 0.2, 10.0, 30.0

#: How long processes get to drain, and servers to write what they hold.
_DRAIN_S, _SERVER_STOP_S = 25.0, 4.0

_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """One process that is kept running."""

    name: str
    role: str
    command: list[str]
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restarts: int = 0
    backoff_s: float = _BACKOFF_S
    start_again_at: float = 0.0
    announced: bool = field(default=False)

    @property
    def is_up(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def info(self) -> ProcessInfo:
        """What the status file says of it."""
        up = self.is_up
        state = "down" if not up else ("running" if self.announced else "starting")
        pid = self.process.pid if self.process and up else 0
        return ProcessInfo(
            name=self.name, role=self.role, pid=pid, started_at=self.started_at,
            state=state, restarts=self.restarts,
        )  # fmt: skip


class Supervisor:
    """Keeps the children of one home running."""

    def __init__(self, settings: Settings, *, workers: int) -> None:
        self.home = settings.home
        self._workers = workers
        self._plan = _load_plan(self.home)
        self.settings = self._plan.settings(settings)
        self._children: list[Child] = []
        self._stopping = threading.Event()
        self._ready = False
        self._written = ""

    def run(self) -> None:
        """Start everything and keep it running until ``stop``."""
        self._start_servers()
        self._write_profile()
        self._start_pool()
        while not self._stopping.wait(_LOOK_EVERY_S):
            self._look()
        self._stop_all()

    def stop(self) -> None:
        """Ask ``run`` to end."""
        self._stopping.set()

    def fail(self, fault: str) -> None:
        """Note why the stack could not be started, and stop what was."""
        logger.error("%s", fault)
        self._stop_all()
        self._write_status(fault=fault)

    def _start_servers(self) -> None:
        valkey = self._add("valkey", "valkey", valkey_command(self._plan, self.home / "valkey"))
        s3 = self._add("s3", "s3", s3_command(self._plan, self.home / "s3"), env=s3_environment())
        self._write_status()
        wait_for_valkey(self.settings, within_s=_START_WITHIN_S, is_up=lambda: valkey.is_up)
        valkey.announced = True
        wait_for_s3(self.settings, within_s=_START_WITHIN_S, is_up=lambda: s3.is_up)
        s3.announced = True

    def _start_pool(self) -> None:
        kubeml = [sys.executable, "-m", "kubeml"]
        self._add("ps", "ps", [*kubeml, "ps"])
        self._add("control", "control", [*kubeml, "control", "--name", "control"])
        for number in range(1, self._workers + 1):
            name = f"worker-{number}"
            self._add(name, "worker", [*kubeml, "worker", "--name", name])
        self._write_status()

    def _add(
        self, name: str, role: str, command: list[str], *, env: dict[str, str] | None = None
    ) -> Child:
        own = {**os.environ, "KUBEML_HOME": str(self.home)}
        child = Child(name=name, role=role, command=command, env=own if env is None else env)
        self._children.append(child)
        self._start(child)
        return child

    def _start(self, child: Child) -> None:
        with (self.home / "logs" / f"{child.name}.log").open("ab") as log:
            child.process = subprocess.Popen(  # noqa: S603 - our own command line
                child.command, env=child.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread
            )  # fmt: skip
        child.started_at = psutil.Process(child.process.pid).create_time()
        child.announced = False

    def _look(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.is_up:
                continue
            if child.process is not None:
                self._note_end(child, now)
            elif now >= child.start_again_at:
                child.restarts += 1
                self._start(child)
        self._note_announcements()
        self._ready = self._ready or all(child.announced for child in self._children)
        self._write_status()

    def _note_end(self, child: Child, now: float) -> None:
        process = child.process
        if process is None:
            return
        _kill_group(process.pid)
        lived_s = time.time() - child.started_at
        child.backoff_s = (
            _BACKOFF_S if lived_s > _CALM_AFTER_S else min(_MAX_BACKOFF_S, child.backoff_s * 2)
        )
        child.start_again_at = now + child.backoff_s
        child.process = None
        logger.warning(
            "%s ended (exit %s), again in %.1f s", child.name, process.returncode, child.backoff_s
        )

    def _note_announcements(self) -> None:
        waiting = [child for child in self._children if not child.announced and child.is_up]
        if not waiting:
            return
        for child in waiting:
            if child.role in {"valkey", "s3"}:
                child.announced = True
        client = state_client(self.settings)
        try:
            nodes = alive_nodes(client)
        except KubemlError:
            return
        finally:
            client.close()
        named = {node.name: node.at for node in nodes}
        servers = [node.at for node in nodes if node.role == "ps"]
        for child in waiting:
            at = max(servers, default=0.0) if child.role == "ps" else named.get(child.name, 0.0)
            # An announcement from before its last start does not count.
            child.announced = child.announced or at >= child.started_at

    def _stop_all(self) -> None:
        servers = [child for child in self._children if child.role in {"valkey", "s3"}]
        others = [child for child in self._children if child not in servers]
        _end(others, _DRAIN_S)
        _end(servers, _SERVER_STOP_S)

    def _write_profile(self) -> None:
        settings = self.settings
        shown = {
            "broker_url": str(settings.broker_url),
            "state_url": str(settings.state_url),
            "s3_endpoint_url": settings.s3_endpoint_url,
            "s3_bucket": settings.s3_bucket,
            "s3_access_key": str(settings.s3_access_key),
            "s3_secret_key": str(settings.s3_secret_key),
        }
        write_private(self.home / PROFILE_NAME, json.dumps({"settings": shown}, indent=2))

    def _write_status(self, *, fault: str = "") -> None:
        me = psutil.Process()
        own = ProcessInfo(
            name="supervisor", role="supervisor", pid=me.pid, started_at=me.create_time(),
            state="running", restarts=0,
        )  # fmt: skip
        text = json.dumps(
            {
                "ready": self._ready,
                "workers": self._workers,
                "fault": fault,
                "processes": [asdict(p) for p in (own, *(c.info() for c in self._children))],
            }
        )
        if text != self._written:
            self._written = text
            write_private(self.home / STATUS_NAME, text)


def main(arguments: list[str]) -> int:
    """Supervise a home until SIGTERM."""
    parser = argparse.ArgumentParser(prog="kubeml.supervisor")
    parser.add_argument("--workers", type=int, required=True)
    options = parser.parse_args(arguments)
    settings = Settings.load()
    logging.basicConfig(
        level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        _ = hold_lock(settings.home)
    except BlockingIOError:
        logger.info("a supervisor runs here already")
        return 0
    supervisor = Supervisor(settings, workers=options.workers)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        supervisor.run()
    except KubemlError as err:
        supervisor.fail(f"{err}")
        return 1
    return 0


def _load_plan(home: Path) -> ServerPlan:
    """The ports and secrets of the last start, if the ports are still free; else fresh ones."""
    path = home / STACK_NAME
    try:
        kept = json.loads(path.read_text("utf-8"))
        plan = ServerPlan(
            valkey_port=int(kept["valkey_port"]),
            s3_ports={str(k): int(v) for k, v in kept["s3_ports"].items()},
            password=Secret(kept["password"]),
            access_key=Secret(kept["access_key"]),
            secret_key=Secret(kept["secret_key"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        plan = None
    if plan is None or not are_free([plan.valkey_port, *plan.s3_ports.values()]):
        plan = ServerPlan.make()
        write_private(path, json.dumps(asdict(plan)))
    return plan


def _die_with_parent() -> None:
    """In a new child, before exec: get SIGTERM should the supervisor be killed."""
    with contextlib.suppress(OSError):  # only Linux has it; clean_up does the rest
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(children: list[Child], within_s: float) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + within_s
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        _kill_group(process.pid)
        process.wait(5)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
