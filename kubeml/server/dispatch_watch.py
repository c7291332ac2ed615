"""Sees to it that a job has the participants it needs, although messages may get lost.

``Recovery`` calls it on every tick.
"""

import math

from brokers import fail_points
from brokers.messages.dispatch import Dispatcher
from brokers.messages.hint import Hint
from brokers.rounds.keeping import Keeping
from brokers.rounds.snapshot import Snapshot
from brokers.wire import new_id
from kubeml.jobs.spec import STAGE_OF, JobSpec, State

#: An unanswered dispatch is sent again after this time if no message waits in the queue.
_LOST_AFTER_MS = 1000
#: Otherwise it is sent again after 10, 20, 40 … s: workers may simply be busy.
_FIRST_RESEND_MS = 10_000

#: A plan that was asked for is asked for again after this long.
_RESCHEDULE_MS = 2000

#: No repetition waits longer than this.
_MAX_WAIT_MS = 60_000


class DispatchWatch:
    """Repairs one job's dispatches, tick by tick. It only remembers when to repeat next."""

    def __init__(self, dispatcher: Dispatcher, store: Keeping, job_id: str) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._job_id = job_id
        self._resent: dict[str, tuple[int, float]] = {}
        self._scheduled_at = 0.0
        #: The generation and last epoch for which a plan was asked for, and how often.
        self._unplanned, self._asked = ("", 0), 0

    def repair(self, snap: Snapshot, spec: JobSpec, *, queue_length: int) -> None:
        """Send the dispatches that are missing.

        Args:
            snap: The job's state now.
            spec: Its spec.
            queue_length: Messages waiting for workers of its kind.
        """
        state = State(snap.state)
        if state is State.PLAN:
            self._ask_for_plan(snap)
            return
        stage = STAGE_OF.get(state)
        if stage is None:
            return
        self._resend(snap, spec, stage, queue_length)
        if _elapsed_ms(snap.head.since, snap) > _LOST_AFTER_MS / 2:
            self._send_one(snap, spec, stage)

    def _ask_for_plan(self, snap: Snapshot) -> None:
        unplanned = (snap.gen, snap.head.epoch)
        if unplanned != self._unplanned:
            self._unplanned, self._asked = unplanned, 0
        since = _elapsed_ms(snap.head.since, snap)
        waited = min(since, _elapsed_ms(self._scheduled_at, snap))
        # Asked ever more rarely: while no control worker runs, the requests pile up in its queue.
        if waited >= min(_RESCHEDULE_MS * 2**self._asked, _MAX_WAIT_MS):
            self._scheduled_at = snap.now_ms
            self._asked = min(self._asked + 1, 10)
            label = f"{self._job_id}-e{snap.head.epoch + 1}-schedule"
            self._dispatcher.schedule(Hint(job_id=self._job_id), label=label)

    def _send_one(self, snap: Snapshot, spec: JobSpec, stage: str) -> None:
        # After the first burst they are sent one at a time, so that jobs share the queue fairly.
        ticket = new_id()
        if self._store.send(snap.gen, ticket, burst=1) == "OK":
            self._publish(ticket, snap, spec, stage)

    def _resend(self, snap: Snapshot, spec: JobSpec, stage: str, queue_length: int) -> None:
        self._resent = {t: v for t, v in self._resent.items() if t in snap.tickets}
        for ticket, sent_at in snap.tickets.items():
            times, last = self._resent.get(ticket, (0, sent_at))
            patience = (
                _LOST_AFTER_MS
                if queue_length == 0
                else min(_FIRST_RESEND_MS * 2**times, _MAX_WAIT_MS)
            )
            if _elapsed_ms(last, snap) >= patience:
                self._resent[ticket] = (times + 1, snap.now_ms)
                self._publish(ticket, snap, spec, stage)

    def _publish(self, ticket: str, snap: Snapshot, spec: JobSpec, stage: str) -> None:
        times = 2 if fail_points.reach("before_dispatch", stage=stage) == "dup" else 1
        for _ in range(times):
            self._dispatcher.stage(
                stage,
                Hint(job_id=self._job_id, ticket=ticket),
                device=spec.device,
                label=f"{self._job_id}-e{snap.head.epoch}-{stage}",
            )


def _elapsed_ms(at_ms: float, snap: Snapshot) -> float:
    """Return the time since an instant of the server's clock; infinity if the clock went back."""
    return snap.now_ms - at_ms if at_ms <= snap.now_ms else math.inf
