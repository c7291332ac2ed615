"""What a participant did, in a line that people read: the result of its task. Pure."""

from collections import defaultdict
from collections.abc import Iterable

#: Celery cuts a result's text at 1,024 characters; better at a place of our own.
_MAX_CHARS = 900


class Served:
    """Which slots of which rounds a participant handed in; it may serve several epochs."""

    def __init__(self) -> None:
        self._rounds: defaultdict[int, defaultdict[int, set[int]]] = defaultdict(
            lambda: defaultdict(set)
        )

    def note(self, *, epoch: int, round_index: int, slot: int) -> None:
        """One contribution that was taken."""
        self._rounds[epoch][slot].add(round_index)

    def __str__(self) -> str:
        """E.g. ``epoch 2: slot 0 rounds 0-7, slot 3 round 4``."""
        text = "; ".join(
            f"epoch {epoch}: "
            + ", ".join(
                f"slot {slot} {'round' if len(rounds) == 1 else 'rounds'} {_ranges(rounds)}"
                for slot, rounds in sorted(slots.items())
            )
            for epoch, slots in sorted(self._rounds.items())
        )
        if len(text) > _MAX_CHARS:
            return text[:_MAX_CHARS] + " …"
        return text or "nothing handed in"


def _ranges(numbers: Iterable[int]) -> str:
    """``0-3 5 7-8`` of 0, 1, 2, 3, 5, 7, 8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
