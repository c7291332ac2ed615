"""Find, signal and kill the stack's own processes, and no others.

A process is known by its pid and its start time: the kernel uses a pid again, and that process is
not ours. psutil comes with the extra ``local``, so it is imported only when it is used.
"""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

#: Environment variable that every process of one supervisor's run carries.
RUN_MARK = "KUBEML_STACK_RUN"

#: Even on the busiest machine an exec is over within this time.
_EXEC_WITHIN_S = 1.0

#: Two readings of one process's start time differ by the rounding of the boot time.
_SAME_START_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """One process of the stack. It leads a process group of its own.

    Attributes:
        name, role: E.g. worker-1, worker; roles are supervisor, valkey, s3, ps, control, worker.
        pid: Its process id, which is its group's too; 0 while it is down.
        started_at: When it started, in Unix seconds, as the kernel has it. It identifies the
            process together with the pid.
        state: ``running``, ``starting``, ``down``, or ``leaving`` (no longer wanted).
        restarts: How often it had to be started again.
        device: The device of a training worker: ``cpu``, or e.g. ``gpu 0``.
    """

    name: str
    role: str
    pid: int
    started_at: float
    state: str
    restarts: int
    device: str = ""


def is_alive(info: ProcessInfo) -> bool:
    """Return whether this very process lives. One that only waits to be reaped does not."""
    return info.pid > 0 and _is_same(info.pid, info.started_at) and not _is_zombie(info.pid)


def send_signal(info: ProcessInfo, number: int) -> None:
    """Send a signal to this very process, if it lives."""
    if is_alive(info):
        _kill(info.pid, number)


def kill_survivors(infos: Sequence[ProcessInfo], *, run: str) -> int:
    """SIGKILL whatever lives in these processes' groups and wait for it to end.

    Args:
        infos: The groups' leaders, as they were noted. After a reboot, or in a container started
            again, their pids may belong to other processes by now.
        run: The value of ``RUN_MARK`` in the environment of each of them.

    Returns:
        How many processes were killed.
    """
    import psutil

    noted = {info.pid: info.started_at for info in infos if info.pid > 0}
    own_groups = {pid for pid, started_at in noted.items() if _is_same(pid, started_at)}
    victims = []
    for process in psutil.process_iter():
        try:
            group = os.getpgid(process.pid)
        except ProcessLookupError:
            continue
        if group not in noted or _is_zombie(process.pid):
            continue
        # Once a group's leader is gone, another process may have founded a group of that number.
        if group in own_groups or _run_of(process) == run:
            victims.append(process)
    for process in victims:
        _kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(victims, timeout=5)
    return len(victims)


def kill_group(leader: int) -> None:
    """SIGKILL the processes left in a process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _is_same(pid: int, started_at: float) -> bool:
    import psutil

    try:
        return abs(float(psutil.Process(pid).create_time()) - started_at) < _SAME_START_S
    except psutil.NoSuchProcess:
        return False


def _is_zombie(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _run_of(process: "psutil.Process") -> str:
    """Return the process's ``RUN_MARK``; "" if it has none, is another user's, or is gone."""
    import psutil

    deadline = time.monotonic() + _EXEC_WITHIN_S
    try:
        # In the middle of its exec a process has no environment at all.
        while not (environment := process.environ()) and time.monotonic() < deadline:
            time.sleep(0.01)
    except (psutil.Error, OSError):
        return ""
    return str(environment.get(RUN_MARK, ""))


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
