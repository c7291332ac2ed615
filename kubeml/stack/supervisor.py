"""The embedded stack's supervisor.

``python -m kubeml.stack.supervisor --min-workers A --max-workers B``

``kubeml up`` starts it in the background. It starts the servers, then the pool's processes. It
starts them again when they end, keeps as many workers as jobs want, and stops all on SIGTERM. Every
child leads a process group of its own, so that none of its own children can be left behind.
"""

import argparse
import functools
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil

from brokers.pool.presence import alive_nodes
from brokers.settings import PROFILE_NAME, Settings
from brokers.state.connections import state_client
from brokers.urls import mask_url
from kubeml import logs
from kubeml.errors import KubemlError
from kubeml.machine import memory_limit, pinned_environment
from kubeml.stack.child import Child, end_all
from kubeml.stack.home import GAVE_WAY, STATUS_NAME, clean_up, hold_lock, write_private
from kubeml.stack.ports import port_of
from kubeml.stack.processes import RUN_MARK, ProcessInfo
from kubeml.stack.servers import (
    _load_plan,
    s3_command,
    s3_environment,
    valkey_command,
    wait_for_s3_apart,
    wait_for_valkey,
)
from kubeml.stack.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

_START_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1
_AFTER_FAULT_S = 2.0

#: How long the pool's processes get to drain, and the servers to write their data.
_DRAIN_S, _SERVER_STOP_S = 25.0, 10.0


class Supervisor:
    """Keeps the processes of one KUBEML_HOME running."""

    def __init__(
        self, settings: Settings, *, min_workers: int, max_workers: int, gpus: Sequence[str] = ()
    ) -> None:
        self.home = settings.home
        self._gpus = list(gpus)
        self._run_id = uuid.uuid4().hex
        self._plan = _load_plan(self.home)
        self.settings = self._plan.settings(settings, directory=self.home / "valkey")
        #: All children but the workers, which are the pool's.
        self._children: list[Child] = []
        self._pool = WorkerPool(
            self.settings, low=min_workers, high=max_workers, make=self._worker, drain_s=_DRAIN_S
        )
        self._stopping = threading.Event()
        self._ready = False
        self._written = ""
        me = psutil.Process()
        self._own = ProcessInfo(
            name="supervisor",
            role="supervisor",
            pid=me.pid,
            started_at=me.create_time(),
            state="running",
            restarts=0,
        )

    def run(self) -> None:
        """Start everything and keep it running until ``stop``.

        Raises:
            KubemlError: A server does not start. Whatever was started has been stopped again.
            OSError: A process cannot be started. The rest has been stopped, too.
        """
        try:
            self._write_status()
            self._start_servers()
            self._write_profile()
            self._start_pool()
            while not self._stopping.wait(_LOOK_EVERY_S):
                self._tend_or_pause()
        finally:
            self._stop_all()

    def stop(self) -> None:
        """Ask ``run`` to end."""
        self._stopping.set()

    def note_fault(self, fault: str) -> None:
        """Note why the stack could not be started, for the ``kubeml up`` that waits for it."""
        self._write_status(fault=fault)

    def _start_servers(self) -> None:
        valkey = self._add("valkey", "valkey", valkey_command(self._plan, self.home / "valkey"))
        s3 = self._add(
            "s3",
            "s3",
            s3_command(self._plan, self.home / "s3"),
            env=s3_environment(),
            cwd=self.home / "s3",
        )
        self._write_status()
        for child, wait in ((valkey, wait_for_valkey), (s3, wait_for_s3_apart)):
            wait(self.settings, within_s=_START_WITHIN_S, is_up=functools.partial(self._may, child))
            child.announced = True

    def _may(self, child: Child) -> bool:
        """Return whether it makes sense to wait for ``child``."""
        return child.is_up and not self._stopping.is_set()

    def _start_pool(self) -> None:
        kubeml = [sys.executable, "-m", "kubeml"]
        self._add("ps", "ps", [*kubeml, "ps"])
        self._add("control", "control", [*kubeml, "control", "--name", "control"])
        self._pool.start()
        self._write_status()

    def _worker(self, number: int) -> Child:
        name = f"worker-{number}"
        command = [sys.executable, "-m", "kubeml", "worker", "--name", name]
        limit = memory_limit(self.settings, workers=self._pool.high)
        env = self._environment() | {"KUBEML_MEMORY_BYTES": str(limit)}
        if not self._gpus:
            return self._child(name, "worker", command, env=env, device="cpu", number=number)
        gpu = self._gpus[number - 1]
        env |= pinned_environment(gpu)
        return self._child(name, "worker", command, env=env, device=f"gpu {gpu}", number=number)

    def _add(
        self,
        name: str,
        role: str,
        command: list[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        child = self._child(name, role, command, env=env, cwd=cwd)
        self._children.append(child)
        child.start()
        return child

    def _child(
        self,
        name: str,
        role: str,
        command: list[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        device: str = "",
        number: int = 1,
    ) -> Child:
        env = dict(self._environment() if env is None else env)
        port = port_of(self.settings.metrics_port, role, number)
        env["KUBEML_METRICS_PORT"] = str(port)
        return Child(
            name=name,
            role=role,
            command=command,
            env={**env, RUN_MARK: self._run_id},
            cwd=cwd or self.home,
            log=self.home / "logs" / f"{name}.log",
            device=device,
        )

    def _environment(self) -> dict[str, str]:
        # Settings travel by environment, so that no kubeml.toml points a child at other servers.
        return os.environ | self.settings.environment()

    def _tend_or_pause(self) -> None:
        try:
            self._tend()
        except OSError as err:
            # The disk may be full, or no process can be started now: either may pass.
            logger.warning("%s, looking again in %.0f s", err, _AFTER_FAULT_S)
            self._stopping.wait(_AFTER_FAULT_S)

    def _tend(self) -> None:
        """Restart ended processes, keep as many workers as jobs want, and write the status."""
        now = time.monotonic()
        for child in self._kept:
            if child.is_up:
                continue
            if child.process is not None:
                self._note_end(child, now)
            elif now >= child.start_again_at:
                child.restarts += 1
                child.start()
        self._pool.look()
        self._note_announcements()
        self._ready = self._ready or all(child.announced for child in self._kept)
        self._write_status()

    def _note_end(self, child: Child, now: float) -> None:
        code, pause_s = child.note_end()
        child.start_again_at = now + pause_s
        logger.warning("%s ended (exit %s), again in %.1f s", child.name, code, pause_s)

    def _note_announcements(self) -> None:
        waiting = [child for child in self._kept if not child.announced and child.is_up]
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
            # An announcement from before the child's last start does not count.
            child.announced = child.announced or at >= child.started_at

    @property
    def _kept(self) -> list[Child]:
        """The children that are to run."""
        return [*self._children, *self._pool.workers]

    def _stop_all(self) -> None:
        self._pool.close()
        servers = [child for child in self._children if child.role in {"valkey", "s3"}]
        others = [c for c in (*self._kept, *self._pool.leaving) if c not in servers]
        end_all(others, _DRAIN_S)
        end_all(servers, _SERVER_STOP_S)

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
        children = [*self._kept, *self._pool.leaving]
        text = json.dumps(
            {
                "run": self._run_id,
                "ready": self._ready,
                "workers": len(self._pool.workers),
                "min_workers": self._pool.low,
                "max_workers": self._pool.high,
                "redis": mask_url(self.settings.broker_url),
                "s3": self.settings.s3_endpoint_url,
                "metrics_port": self.settings.metrics_port,
                "fault": fault,
                "processes": [asdict(p) for p in (self._own, *(c.info() for c in children))],
            }
        )
        if text != self._written:
            write_private(self.home / STATUS_NAME, text)
            self._written = text


def main(arguments: list[str]) -> int:
    """Supervise a KUBEML_HOME until SIGTERM, and return the exit code."""
    parser = argparse.ArgumentParser(prog="kubeml.stack.supervisor")
    parser.add_argument("--min-workers", type=int, required=True)
    parser.add_argument("--max-workers", type=int, required=True)
    parser.add_argument("--gpus", default="", help="of each worker, by commas")
    options = parser.parse_args(arguments)
    settings = Settings.load()
    logs.set_up(settings)
    try:
        _ = hold_lock(settings.home)
    except BlockingIOError:
        logger.info("a supervisor runs here already")
        return GAVE_WAY
    left = clean_up(settings.home)
    if left:
        logger.warning("killed %d processes that a supervisor before had left", left)
    gpus = options.gpus.split(",") if options.gpus else []
    supervisor = Supervisor(
        settings, min_workers=options.min_workers, max_workers=options.max_workers, gpus=gpus
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.stop())
    try:
        supervisor.run()
    except (KubemlError, OSError) as err:
        logger.exception("the stack could not be started")
        supervisor.note_fault(str(err))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
