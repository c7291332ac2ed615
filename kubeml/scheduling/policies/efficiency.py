"""The policy ``efficiency``: as many slots as are worth their workers, or a deadline needs. Pure.

The goodput of N slots is samples per second (``epoch_model``) times what a sample is worth
(``goodput``). Slot n + 1 *adds x of its share* if goodput grows by x / n: 1 is linear, 0 nothing.
N is the largest for which every slot adds half of its share. Where nothing but the batch sets a
limit, that is N B = phi, the critical batch size of McCandlish et al. (arXiv:1812.06162): twice the
least number of samples, and twice the least number of steps. Where nothing but time does, it is
where what more slots do not shorten (what a merge takes for each slot) takes as long as the rest.

What keeps N still: it grows only if the slot adds 55 % and shrinks only if the last one adds less
than 45 %; after a change two epochs must pass, and twice as many with every turn from growing to
shrinking or back among the epochs looked at. N at most doubles or halves (as Pollux grows jobs to
twice what was tried at most): the model is trusted near what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import floor

from kubeml.jobs.results import EpochRow
from kubeml.scheduling.policies.epoch_model import MERGE_GROWS, EpochModel
from kubeml.scheduling.policies.goodput import efficiency as worth
from kubeml.scheduling.policies.goodput import noise_scale
from kubeml.scheduling.policies.situation import Decision, Situation, seconds

GROW_FROM = 0.55
SHRINK_BELOW = 0.45

#: Epochs with the same N after a change, before the next one.
_DWELL = 2
#: A deadline is met with so much of its time: else every epoch that is a little late changes N.
_ROOM = 0.9
#: A deadline that is missed anyway is worth no change for less than this part of the time.
_WORTH = 0.05


def efficiency(now: Situation) -> Decision:
    """Choose N for the next epoch, by the epochs that were; see the module."""
    if not now.history:
        return Decision(parallelism=now.clamp(now.initial), why="first epoch")
    current = now.current
    if current != now.clamp(current):
        why = f"N may be from {now.floor} to {now.ceiling}"
        return Decision(parallelism=now.clamp(current), why=why)
    model = _model(now)
    if model is None:
        return Decision(parallelism=current, why="kept: no epoch has timings")
    if now.time_left_s is not None:
        return _for_deadline(now, model, now.time_left_s)
    return _for_goodput(now, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Goodput by the number of slots: time model, noise scale (samples), batch and workers."""

    model: EpochModel
    noise_scale: float
    batch_size: int
    workers: int

    def __call__(self, slots: int) -> float:
        """Of so many slots: samples per second, each as much as it is worth."""
        per_s = self.model.num_rows / self.model.epoch_s(slots, self.workers)
        return per_s * worth(slots * self.batch_size, self.noise_scale)

    def adds(self, slots: int) -> float:
        """Which part of its share the last of so many slots adds; the first one adds all."""
        if slots == 1:
            return 1.0
        before = slots - 1
        return before * (self(slots) / self(before) - 1)

    def reach(self, floor: int, most: int, threshold: float) -> int:
        """The largest number of slots up to which each adds ``threshold`` of its share."""
        slots = floor
        while slots < most and self.adds(slots + 1) >= threshold:
            slots += 1
        return slots


def _for_goodput(now: Situation, model: EpochModel) -> Decision:
    current, most = now.current, _most(now)
    scale = noise_scale(now.history, batch_size=now.batch_size)
    goodput = Goodput(
        model=model, noise_scale=scale, batch_size=now.batch_size, workers=now.pool.usable
    )
    # Which part of a merge grows with N is seen once N has changed: until then, N is to change.
    fewer = replace(goodput, model=_model(now, merge_grows=1.0) or model)
    up = min(goodput.reach(now.floor, most, GROW_FROM), 2 * current)
    down = max(fewer.reach(now.floor, most, SHRINK_BELOW), (current + 1) // 2)
    if current > most:
        if not _lacked_workers(now.history[-1]):
            return _kept(now, f"{now.pool} at the moment")
        down = min(down, most)
        why = f"down: {now.pool}, and each slot adds its share up to {down}"
    elif up > current:
        why = f"up: slot {current + 1} should add {_part(goodput.adds(current + 1), GROW_FROM)}"
    elif down < current:
        why = f"down: slot {current} adds {_part(fewer.adds(current), SHRINK_BELOW)}"
    else:
        return _kept(now, _why_kept(now, goodput, most))
    chosen = up if up > current else down
    if rest := _rest(now.history):
        epochs = "one epoch more is" if rest == 1 else f"{rest} epochs more are"
        return _kept(now, f"N has changed lately, {epochs} measured first ({why})")
    per_sample = worth(chosen * now.batch_size, scale) / worth(current * now.batch_size, scale)
    return Decision(
        parallelism=chosen, why=f"{why}; a sample is then worth {per_sample:.0%} of what it was"
    )


def _for_deadline(now: Situation, model: EpochModel, time_left_s: float) -> Decision:
    """The smallest N that meets the deadline: it costs the least convergence and workers."""
    current, workers = now.current, now.pool.usable
    each_s = time_left_s / now.epochs_left - now.between_s
    times = {
        slots: model.epoch_s(slots, workers)
        for slots in {*range(now.floor, _most(now) + 1), current}
    }
    if time_left_s <= 0:
        goal = "the deadline has passed"
    else:
        epochs = "1 epoch" if now.epochs_left == 1 else f"{now.epochs_left} epochs"
        goal = f"{seconds(time_left_s)} for {epochs}, {seconds(max(0.0, each_s))} each"
    meeting = [slots for slots in sorted(times) if times[slots] <= each_s]
    if not meeting:
        fastest = min(sorted(times), key=lambda slots: times[slots])
        if times[fastest] > (1 - _WORTH) * times[current]:
            fastest = current
        return Decision(
            parallelism=fastest,
            why=f"deadline CANNOT be met: {goal}; {fastest} slots are the fastest, "
            f"with {seconds(times[fastest])}",
        )
    if times[current] > each_s:
        chosen, verb = meeting[0], "up" if meeting[0] > current else "down"
    else:
        roomy = [slots for slots in meeting if times[slots] <= _ROOM * each_s]
        chosen, verb = min([*roomy, current]), "down"
        if chosen == current or _rest(now.history):
            chosen, verb = current, "kept"
    return Decision(
        parallelism=chosen,
        why=f"{verb} for the deadline: {goal}; {chosen} slots take {seconds(times[chosen])}",
    )


def _model(now: Situation, merge_grows: float = MERGE_GROWS) -> EpochModel | None:
    return EpochModel.fit(
        now.history,
        num_rows=now.num_rows,
        batch_size=now.batch_size,
        k=now.k,
        merge_grows=merge_grows,
    )


def _most(now: Situation) -> int:
    """The largest N that is allowed and can run at the same time."""
    return max(now.floor, min(now.ceiling, now.pool.usable))


def _lacked_workers(row: EpochRow) -> bool:
    """Whether an epoch had fewer workers than slots: else they may only be slow to tell of it."""
    workers = row.num_workers if row.mean_workers is None else row.mean_workers
    return workers < row.parallelism - 0.5


def _rest(history: Sequence[EpochRow]) -> int:
    """For how many epochs more N is to stay, because it has changed lately."""
    slots = [row.parallelism for row in history]
    steps = [after - before for before, after in pairwise(slots) if after != before]
    if not steps:
        return 0
    turns = sum((before > 0) != (after > 0) for before, after in pairwise(steps))
    same = next(i for i, n in enumerate([*reversed(slots), 0]) if n != slots[-1])
    return max(0, int(_DWELL * 2**turns) - same)


def _kept(now: Situation, why: str) -> Decision:
    return Decision(parallelism=now.current, why=f"kept: {why}")


def _why_kept(now: Situation, goodput: Goodput, most: int) -> str:
    current = now.current
    if current >= now.ceiling and current > now.floor:
        return f"at the ceiling of {now.ceiling}"
    if now.floor == now.ceiling:
        return f"N is to be {now.floor}"
    if current >= most and current > now.floor:
        return f"{now.pool}"
    more = f"slot {current + 1} would add {_part(goodput.adds(current + 1), GROW_FROM)}"
    if current == now.floor:
        return f"{more}, at the floor of {now.floor}"
    return f"{more}, slot {current} adds {goodput.adds(current):.0%}"


def _part(adds: float, needed: float) -> str:
    return f"{floor(100 * adds)}% of its share ({needed:.0%} needed)"
