"""The pool at one moment: what each worker does, how far jobs are, what waits. Pure values.

``picture`` makes it; ``kubeml top``, ``Client.pool`` and the metrics show it.
"""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PoolWorker:
    """A training worker.

    Attributes:
        name, host, device, gpu: As it announced itself; ``host`` is "" if it has not done so (yet).
        stage: What it does: ``init``, ``train`` or ``validate``; ``wait`` if it has handed in its
            part and waits for the rest of the round; ``infer`` if it has an inference request in
            hand; or ``idle``.
        job: The job it works for; "" if there is none.
        epoch: The epoch it works on, from 1; 0 if there is none.
        round: The round it works on, from 0 as in the ledger; None outside a round of training.
        slot, attempt: The slot it holds, and which attempt this is; None if it holds none.
        for_s: How long it has been doing this; None if unknown.
        samples_per_s: Its own speed: the rows it handed in last, by the time it held their slots.
            Waiting does not count, so that a slow worker is seen.
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
        device: The device of the workers that it wants.
        epoch: Epoch under way, from 1 (0 before the first).
        round, rounds: Merges done and to be done in that epoch.
        progress: The part of that epoch's rows that were handed in, 0 to 1; None if unknown.
        slots: N of that epoch.
        workers: Number of participants.
        share: Their part of the live workers of its device, 0 to 1; None if there are none.
        samples_per_s: Rows trained per second over the last rounds; None if unknown, or if the job
            does not train.
        epoch_left_s: Seconds until the epoch's rows are trained; None outside the training.
        left_s: Seconds until the rows of all epochs are trained, at this speed, with pauses between
            epochs as long as the last ones. A goal that may be reached earlier is not considered.
        waiting: Dispatches that no worker has answered.
        oldest_wait_s: How long the oldest of them has waited; None if there are none.
        reason: Why no worker can serve it now, which makes it shown as PENDING; "" if one does, or
            is about to.
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
        """The state as people and ``--json`` are shown it, as in ``JobStatus``."""
        return "PENDING" if self.reason else self.state


@dataclass(frozen=True, kw_only=True)
class PoolQueue:
    """A queue: how many messages wait in it, and how many live processes serve it."""

    name: str
    messages: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class PoolView:
    """The pool at one moment.

    Attributes:
        at: When that was, in Unix seconds.
        jobs: The jobs under way, oldest first.
        workers: The workers, by device and name.
        queues: The queues, in a fixed order.
    """

    at: float
    jobs: list[PoolJob] = field(default_factory=list)
    workers: list[PoolWorker] = field(default_factory=list)
    queues: list[PoolQueue] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        """Return the view as JSON-able values."""
        wire = asdict(self)
        for row, job in zip(wire["jobs"], self.jobs, strict=True):
            row["state"] = job.shown_state
        return wire
