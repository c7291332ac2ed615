"""A process that a supervisor or a worker group keeps running, and how it begins and ends."""

import contextlib
import ctypes
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubeml.stack.processes import ProcessInfo, kill_group

#: A process that ended is started again after this pause, which doubles each time up to the
#: maximum. One that ran for longer than the last of these begins with the shortest pause.
_BACKOFF_S, _MAX_BACKOFF_S, _CALM_AFTER_S = 0.2, 10.0, 30.0

_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """One process that is kept running.

    Attributes:
        name, role: Its name and role in the status file.
        command, env, cwd: What to start, and where.
        log: The file its output is appended to; None: its output goes where this process's goes.
        process: The running process; None once its end was noted.
        started_at: When the process was last started, as the kernel has it; by our clock if
            psutil is not installed.
        restarts: How often it had to be started again.
        backoff_s: The pause before the last restart.
        start_again_at: When it may start again, by the supervisor's monotonic clock.
        announced: Whether it has answered since its last start.
        device: The device of a training worker, see ``ProcessInfo``.
        is_leaving: Whether it was told to end; it is not started again then.
    """

    name: str
    role: str
    command: list[str]
    env: dict[str, str]
    cwd: Path
    log: Path | None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restarts: int = 0
    backoff_s: float = _BACKOFF_S
    start_again_at: float = 0.0
    announced: bool = False
    device: str = ""
    is_leaving: bool = False

    @property
    def is_up(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def info(self) -> ProcessInfo:
        """Return the process's entry in the status file."""
        up = self.is_up
        state = "down" if not up else ("running" if self.announced else "starting")
        state = "leaving" if up and self.is_leaving else state
        pid = self.process.pid if self.process and up else 0
        return ProcessInfo(
            name=self.name,
            role=self.role,
            pid=pid,
            started_at=self.started_at,
            state=state,
            restarts=self.restarts,
            device=self.device,
        )

    def start(self) -> None:
        """Start the process, in a session (so a process group) of its own.

        Raises:
            OSError: It cannot be started.
        """
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self.log.open("ab")) if self.log else None
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                self.command,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread
            )
        self.started_at = _start_time(self.process.pid)
        self.announced = False

    def note_end(self) -> tuple[int | None, float]:
        """Clear away a process that has ended.

        Returns:
            Its exit code, and the pause before it is started again, in seconds.
        """
        code = None
        if self.process is not None:
            kill_group(self.process.pid)
            code = self.process.returncode
            self.process = None
        calm = time.time() - self.started_at > _CALM_AFTER_S
        self.backoff_s = _BACKOFF_S if calm else min(_MAX_BACKOFF_S, self.backoff_s * 2)
        return code, self.backoff_s


def _start_time(pid: int) -> float:
    try:
        # psutil comes with the extra `local`: only the embedded stack finds its processes by it.
        import psutil
    except ImportError:
        return time.time()
    return float(psutil.Process(pid).create_time())


def _die_with_parent() -> None:
    """Let the kernel end a new child with its supervisor; called in the child, before exec."""
    with contextlib.suppress(OSError, AttributeError):  # only Linux has it; clean_up does the rest
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_all(children: Sequence[Child], within_s: float) -> None:
    """SIGTERM all of them, wait for their ends, and SIGKILL what is left of their groups."""
    running = [child.process for child in children if child.process is not None]
    for child in children:
        # A process that was told to leave already is not told twice.
        if child.process is not None and child.is_up and not child.is_leaving:
            child.process.terminate()
    deadline = time.monotonic() + within_s
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        kill_group(process.pid)
        process.wait(5)
