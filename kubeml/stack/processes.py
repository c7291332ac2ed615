"""Which process is which: by pid and start time, so that a number used again is not taken for ours.

psutil comes with the extra ``local``: it is imported when processes are looked at, no sooner.
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

#: An exec is over within this, on the busiest machine.
_EXEC_WITHIN_S = 1.0

#: Start times of one process, read twice, differ by the rounding of the boot time.
_SAME_START_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """One process of the stack; it leads a process group of its own.

    Attributes:
        name, role: E.g. worker-1, worker; roles are supervisor, valkey, s3, ps, control, worker.
        pid: Its process id (and its group's); 0 while it is down.
        started_at: Unix seconds, as the kernel has it: with the pid it identifies the process.
        state: ``running``, ``starting``, ``down``, or ``leaving`` (not wanted any more).
        restarts: How often it had to be started again.
        device: Of a training worker: ``cpu``, or e.g. ``gpu 0``.
    """

    name: str
    role: str
    pid: int
    started_at: float
    state: str
    restarts: int
    device: str = ""


def is_alive(info: ProcessInfo) -> bool:
    """Whether this very process lives (one that only waits to be reaped does not)."""
    return info.pid > 0 and _is_same(info.pid, info.started_at) and not _is_zombie(info.pid)


def send_signal(info: ProcessInfo, number: int) -> None:
    """Signal this very process, if it lives."""
    if is_alive(info):
        _kill(info.pid, number)


def kill_survivors(infos: Sequence[ProcessInfo], *, run: str) -> int:
    """SIGKILL what lives of these processes' groups, wait for it, and return how many that were.

    Args:
        infos: The leaders, as they were noted; after a reboot, or in a container started again,
            their numbers may belong to others by now.
        run: What ``RUN_MARK`` says in the environment of every one of them.
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
        # A group whose leader is gone may have been founded again by somebody else.
        if group in own_groups or _run_of(process) == run:
            victims.append(process)
    for process in victims:
        _kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(victims, timeout=5)
    return len(victims)


def kill_group(leader: int) -> None:
    """SIGKILL what is left of a process group."""
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
    """What its ``RUN_MARK`` says; "" if it has none, is another user's, or gone."""
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
