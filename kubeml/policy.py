"""How many slots the next epoch gets: policies as pure functions of the history.

Each policy is a function from what is known to a ``Decision``; ``POLICIES`` names them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kubeml.job import EpochRow

#: Below (last epoch's time x this) KubeML scales up; above (x SCALE_DOWN) it scales down.
SCALE_UP_THRESHOLD = 1.05
SCALE_DOWN_THRESHOLD = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What the scheduler knows of the workers: ``capacity`` live ones on the job's queue."""

    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many slots, and why (a sentence for ``history get`` and ``task show``)."""

    parallelism: int
    why: str


Policy = Callable[[Sequence[EpochRow], int, int, Pool], Decision]


def static(history: Sequence[EpochRow], initial: int, ceiling: int, pool: Pool) -> Decision:
    """Keep the parallelism the user asked for."""
    return Decision(parallelism=initial, why="static")


def throughput(history: Sequence[EpochRow], initial: int, ceiling: int, pool: Pool) -> Decision:
    """KubeML's policy: one more slot while epochs do not get slower, one fewer when they do.

    The last epoch's own time is compared with the epoch before it: up to 1.05 times as long
    scales up, 1.2 times or more scales down, anything between keeps N. Unlike the original it
    never leaves ``[1, ceiling]`` and does not grow beyond the workers there are, where more
    slots could not run at the same time.

    Args:
        history: Rows of the epochs so far, oldest first.
        initial: N of the first epoch.
        ceiling: Largest N allowed.
        pool: The workers.

    Source: D. Albo Martínez, KubeML (TU Delft, 2021), throughput-based policy.
    """
    if not history:
        return Decision(parallelism=min(initial, ceiling), why="first epoch")
    last = history[-1]
    current = last.parallelism
    if len(history) == 1:
        return _grow(current, ceiling, pool, "no earlier epoch to compare with")
    before = history[-2].duration_s
    ratio = last.duration_s / before if before > 0 else 1.0
    took = f"epoch took {ratio:.2f}x the one before"
    if ratio <= SCALE_UP_THRESHOLD:
        return _grow(current, ceiling, pool, took)
    if ratio >= SCALE_DOWN_THRESHOLD:
        if current == 1:
            return Decision(parallelism=1, why=f"{took}: kept at the floor of 1")
        return Decision(parallelism=current - 1, why=f"{took}: down")
    return Decision(parallelism=current, why=f"{took}: kept")


def _grow(current: int, ceiling: int, pool: Pool, why: str) -> Decision:
    if current >= ceiling:
        return Decision(parallelism=ceiling, why=f"{why}: kept at the ceiling of {ceiling}")
    if current >= max(1, pool.capacity):
        return Decision(
            parallelism=current, why=f"{why}: kept, the pool has {pool.capacity} workers"
        )
    return Decision(parallelism=current + 1, why=f"{why}: up")


POLICIES: Mapping[str, Policy] = {"static": static, "throughput": throughput}
