"""``kubeml chaos``: train while processes of the embedded stack are killed at random.

The supervisor starts the killed processes again. The run measures how soon the job moves on, and
checks that it ends with the same weights and every row counted once.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from brokers.rounds.store import RoundStore
from brokers.settings import Settings
from brokers.wire import new_id
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.errors import Conflict, KubemlError, NameTaken
from kubeml.jobs.results import JobEnd
from kubeml.jobs.spec import State
from kubeml.ops.chaos.report import (
    Change,
    ChaosReport,
    JobRun,
    Kill,
    Merge,
    rounds_lost,
    usual_interval,
    with_recovery,
)
from kubeml.stack.processes import is_alive
from kubeml.stack.stack import status

#: The kinds that can be killed, and the role of each in the stack.
ROLES = {"worker": "worker", "ps": "ps", "control": "control", "broker": "valkey", "s3": "s3"}

#: How often a job's live state is looked at.
_LOOK_EVERY_S = 0.05

#: A job that makes no progress at all for this long is given up.
_GIVE_UP_S = 180.0

T = TypeVar("T")

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ChaosPlan:
    """What a chaos run is to do.

    Attributes:
        function, dataset, options: The job that is trained again and again.
        kinds: The kinds to kill; keys of ``ROLES``.
        every_s: Seconds between two kills.
        for_s: Seconds of chaos; the job that is under way at their end is waited for.
        seed: Fixes which processes are killed.
    """

    function: str
    dataset: str
    options: Mapping[str, Any]
    kinds: Sequence[str]
    every_s: float
    for_s: float
    seed: int


def run_chaos(settings: Settings, plan: ChaosPlan, tell: Tell) -> ChaosReport:
    """Train once undisturbed, then under chaos until the time is over.

    Raises:
        Conflict: The embedded stack is not running, or the undisturbed job failed.
    """
    if not status(settings).ready:
        raise Conflict(what="the embedded stack is not running", hint="start it: kubeml up")
    with Client(settings) as client:
        tell("an undisturbed job first")
        calm, calm_seen, merges = _train(client, plan)
        if calm.state is not State.DONE:
            raise Conflict(what=f"the undisturbed job {calm.job_id} is {calm.state}")
        tell(f"undisturbed: {_told(calm)}")
        runs: list[JobRun] = []
        seen: list[Change] = []
        deadline = time.monotonic() + plan.for_s
        with _killing(settings, plan, tell) as kills:
            while time.monotonic() < deadline:
                run, changes, merged = _train(client, plan, deadline=deadline, kills=kills)
                runs.append(run)
                seen += changes
                merges += merged
                tell(_told(run))
    return ChaosReport(
        calm=calm,
        runs=runs,
        kills=with_recovery(kills.done, seen),
        usual_s=usual_interval(calm_seen),
        merges=merges,
    )


class _Killer(threading.Thread):
    """Kills a random process of a random kind, again and again."""

    def __init__(self, settings: Settings, plan: ChaosPlan, tell: Tell) -> None:
        super().__init__(name="chaos", daemon=True)
        self._settings, self._plan, self._tell = settings, plan, tell
        self._random = random.Random(plan.seed)  # noqa: S311 - no secret
        self._bag: list[str] = []
        self._stopped = threading.Event()
        self.done: list[Kill] = []

    def run(self) -> None:
        """Kill until stopped."""
        while not self._stopped.wait(self._plan.every_s):
            self._kill_one()

    def stop(self) -> None:
        """Kill no more processes."""
        self._stopped.set()

    def _kill_one(self) -> None:
        if not self._bag:
            # Every kind is killed as often as any other, in random order.
            self._bag = self._random.sample(list(self._plan.kinds), len(self._plan.kinds))
        kind = self._bag.pop()
        up = [p for p in status(self._settings).processes if p.role == ROLES[kind] and is_alive(p)]
        if not up:
            # The process was killed a moment ago and is not back yet.
            self._bag.append(kind)
            return
        victim = self._random.choice(up)
        # A process leads a group of its own: a worker's children die with it, as on a dead machine.
        os.killpg(victim.pid, signal.SIGKILL)
        self.done.append(Kill(at=time.time(), kind=kind, name=victim.name))
        self._tell(f"killed {victim.name}")


@contextmanager
def _killing(settings: Settings, plan: ChaosPlan, tell: Tell) -> Iterator[_Killer]:
    killer = _Killer(settings, plan, tell)
    killer.start()
    try:
        yield killer
    finally:
        killer.stop()
        killer.join()


def _train(
    client: Client,
    plan: ChaosPlan,
    *,
    deadline: float | None = None,
    kills: _Killer | None = None,
) -> tuple[JobRun, list[Change], list[Merge]]:
    """Submit a job and watch it to its end, even while servers do not answer."""
    job = _submit(client, plan)
    seen: list[Change] = []
    merges: list[Merge] = []
    since, looked_at, moved_at = "0", 0.0, time.monotonic()
    end: JobEnd | None = None
    while end is None:
        now = time.monotonic()
        if deadline is not None and now > deadline and kills is not None:
            kills.stop()
        if now - moved_at > _GIVE_UP_S:
            raise Conflict(
                what=f"job {job.id} has made no progress for {_GIVE_UP_S:g} s",
                hint=f"kubeml task show --id {job.id}",
            )
        try:
            if _note_change(client, job, seen):
                moved_at = now
            if now - looked_at > 1.0:
                looked_at = now
                since = _note_merges(job, merges, since)
                end = client.backends.records.end(job.id)
        except KubemlError:
            # A server is down, as is to be expected here.
            end = None
        time.sleep(_LOOK_EVERY_S)
    _patiently(lambda: _note_merges(job, merges, since))
    ended = end
    return _patiently(lambda: _run_of(job, ended, seen)), seen, merges


def _submit(client: Client, plan: ChaosPlan) -> Job:
    job_id = f"chaos-{new_id()[:8]}"

    def submit() -> Job:
        try:
            return client.train(plan.function, plan.dataset, job_id=job_id, **plan.options)
        except NameTaken:
            # The attempt before this one submitted the job, and then a server went away.
            return client.job(job_id)

    return _patiently(submit)


def _patiently(act: Callable[[], T]) -> T:
    """Call ``act`` again and again while a server does not answer, for a minute at most."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return act()
        except KubemlError as err:
            if err.exit_code != 5 or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _note_change(client: Client, job: Job, seen: list[Change]) -> bool:
    """Note the job's state if it has changed since the last look."""
    head = RoundStore(client.backends.redis, job.id).head()
    if not head:
        return False
    now = Change(
        at=time.time(),
        gen=int(head.gen),
        state=head.state,
        version=head.version,
        job_id=job.id,
    )
    last = seen[-1] if seen else None
    if last and (now.gen, now.state, now.version) == (last.gen, last.state, last.version):
        return False
    seen.append(now)
    return True


def _note_merges(job: Job, merges: list[Merge], since: str) -> str:
    for event in job.recent_events(since=since):
        since = event.id
        if event.kind == "round":
            fields = event.fields
            merges.append(Merge(at=event.at, samples=fields["samples"], loss=fields["loss"]))
    return since


def _run_of(job: Job, end: JobEnd, seen: Sequence[Change]) -> JobRun:
    audit = job.audit(verify=True)
    return JobRun(
        job_id=job.id,
        state=end.state,
        accuracy=end.accuracy,
        weights_sha256=end.weights_sha256,
        elapsed_s=end.elapsed_s,
        slots_redone=sum(row.retries for row in job.history()),
        rounds_redone=rounds_lost(seen),
        generations=len(audit.generations),
        faults=audit.all_faults,
    )


def _told(run: JobRun) -> str:
    accuracy = "-" if run.accuracy is None else f"{run.accuracy:.2f} %"
    return f"job {run.job_id}: {run.state}, accuracy {accuracy}, {run.elapsed_s:.0f} s"
