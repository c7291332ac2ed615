"""The pool at one moment: who does what, how far the jobs are, what waits. Pure values."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PoolWorker:
    """A training worker.

    Attributes:
        name, host, device, gpu: As it announced itself; ``host`` is "" if it did not (yet).
        stage: What it does: ``init``, ``train``, ``validate``; ``wait`` for the rest of the round,
            having handed in its part; ``infer``, having an inference request in hand; or ``idle``.
        job: For which job; "" if for none.
        epoch: Of which epoch, from 1; 0 if of none.
        round: Of which round, from 0 as in the ledger; None outside a round of training.
        slot, attempt: What it holds, at which attempt; None if it holds nothing.
        for_s: For how long; None if that is not known.
        samples_per_s: Its own speed: rows it handed in last, by the time it held their slots.
            Waiting does not count, so that a slow one is seen.
    """

    name: str
    host: str
    device: str
    gpu: str
    stage: str = "idle"
    job: str = ""
    epoch: int = 0
    round: int | None = None
    slot: int | None = None
    attempt: int | None = None
    for_s: float | None = None
    samples_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class PoolJob:
    """A job under way.

    Attributes:
        id, state: Which job, and its state; "" if its live state is gone.
        function, epochs: What was asked for; "" and 0 if the records could not be read.
        device: Which workers it is for.
        epoch: Epoch under way, from 1 (0 before the first).
        round, rounds: Merges done and to be done in that epoch.
        progress: Part of that epoch's rows that were handed in, 0 to 1; None if not known.
        slots: N of that epoch.
        workers: Participants.
        share: They, as a part of the live workers of its device, 0 to 1; None if there are none.
        samples_per_s: Rows trained per second over the last rounds; None if not known, or not
            training.
        epoch_left_s: Until the epoch's rows are trained; None outside the training.
        left_s: Until those of all epochs are, at this speed, with pauses between them as long as
            the last ones. That a goal may be reached before is not counted.
        waiting: Dispatches that no worker has answered.
        oldest_wait_s: For how long the oldest of them has waited; None if there are none.
        reason: Why no worker can serve it now, which is shown as PENDING; "" if one does, or is
            about to.
    """

    id: str
    state: str
    function: str
    device: str
    epoch: int
    epochs: int
    round: int
    rounds: int
    progress: float | None
    slots: int
    workers: int
    share: float | None
    samples_per_s: float | None
    epoch_left_s: float | None
    left_s: float | None
    waiting: int
    oldest_wait_s: float | None
    reason: str = ""

    @property
    def shown_state(self) -> str:
        """The state for people and ``--json``, as in ``JobStatus``."""
        return "PENDING" if self.reason else self.state


@dataclass(frozen=True, kw_only=True)
class PoolQueue:
    """A queue: messages that wait in it, live processes that serve it."""

    name: str
    messages: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """The pool at one moment.

    Attributes:
        at: When, Unix seconds.
        jobs: Those under way, oldest first.
        workers: By device and name.
        queues: In the order of their names' places.
    """

    at: float
    jobs: list[PoolJob] = field(default_factory=list)
    workers: list[PoolWorker] = field(default_factory=list)
    queues: list[PoolQueue] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        """The view as JSON-able values."""
        wire = asdict(self)
        for row, job in zip(wire["jobs"], self.jobs, strict=True):
            row["state"] = job.shown_state
        return wire
