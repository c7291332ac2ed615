"""What a policy decides by, and what it decides. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from kubeml.jobs.results import EpochRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What the scheduler knows of the workers.

    Attributes:
        capacity: Live ones on the job's queue.
        max_workers: How many of them the job may have at a time; 0 for any number.
    """

    capacity: int
    max_workers: int = 0

    @property
    def usable(self) -> int:
        """Workers that can serve the job at the same time; at least one, which may come yet."""
        return max(1, min(self.capacity, self.max_workers or self.capacity))

    def __str__(self) -> str:
        if 0 < self.max_workers < self.capacity:
            return f"--max-workers is {self.max_workers}"
        return f"the pool has {self.capacity} worker{'' if self.capacity == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known when an epoch is to be planned.

    Attributes:
        history: Rows of the last epochs, oldest first, without a gap; empty before the first.
        initial: N of the first epoch.
        floor, ceiling: Between what N may be.
        pool: The workers.
        num_rows: Samples of an epoch.
        batch_size, k: Of the job; K is -1 for one merge per epoch.
        epochs_left: Epochs to be trained, the one to be planned included.
        time_left_s: Until the deadline; None if there is none.
    """

    history: Sequence[EpochRow]
    initial: int
    floor: int
    ceiling: int
    pool: Pool
    num_rows: int = 1
    batch_size: int = 1
    k: int = -1
    epochs_left: int = 1
    time_left_s: float | None = None

    @property
    def current(self) -> int:
        """N of the last epoch; the initial one before the first."""
        return self.history[-1].parallelism if self.history else self.initial

    @property
    def between_s(self) -> float:
        """What passes from the last merge of an epoch to the next PLAN: validation and records."""
        gaps = [
            max(0.0, after.ended_at - before.ended_at - after.duration_s)
            for before, after in pairwise(self.history)
        ]
        if not gaps:
            return self.history[-1].validation_s if self.history else 0.0
        return median(gaps)  # a job that was rebuilt or resumed has a long one

    def clamp(self, slots: int) -> int:
        """The number of slots nearest to ``slots`` that is allowed."""
        return max(self.floor, min(self.ceiling, slots))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many slots, why, and what is expected of it; a part of the epoch's history row.

    Attributes:
        parallelism: N of the next epoch.
        why: A sentence for people.
        expected_s: What the epoch should take, PLAN to the last merge; None if it is not known.
    """

    parallelism: int
    why: str
    expected_s: float | None = None


def seconds(value: float) -> str:
    """A time for people: 0.42 s, 12.3 s, 4m 05s, 1h 02m."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    minutes = round(value) // 60
    if minutes < 60:
        return f"{minutes}m {round(value) % 60:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
