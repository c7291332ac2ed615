"""The outer optimizer: the step from a round's weights towards the mean of its slots. Pure.

Sources: ``nesterov``, DiLoCo, arXiv:2311.08105; ``slowmo``, arXiv:1910.00643.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    """The outer optimizer: its name and hyper-parameters.

    Attributes:
        name: ``mean`` (take the mean itself: K-AVG), ``nesterov`` or ``slowmo``.
        lr: Outer learning rate.
        momentum: Outer momentum, in [0, 1).
    """

    name: str = "mean"
    lr: float = 1.0
    momentum: float = 0.0

    @property
    def is_plain_mean(self) -> bool:
        """Whether the step is the mean itself, without any arithmetic on top."""
        return self.name == "mean" and self.lr == 1.0 and self.momentum == 0.0

    @property
    def has_state(self) -> bool:
        """Whether the step needs a momentum buffer from merge to merge."""
        return not self.is_plain_mean


class OuterStep:
    """One step over all trained weights, range by range.

    Args:
        outer: The optimizer.
        trained: The ranges of trained weights: a name for each, to its number of elements.
        state: The momentum of all ranges, float32, in their order, which is changed in place; None
            if the optimizer has none.

    Raises:
        ValueError: The state has a wrong length.
    """

    def __init__(self, outer: Outer, trained: Mapping[int, int], state: bytearray | None) -> None:
        self._outer = outer
        self._momentum: dict[int, NDArray[np.float32]] = {}
        if outer.is_plain_mean:
            return
        size = 4 * sum(trained.values())
        if state is None or len(state) != size:
            raise ValueError(f"outer state is {len(state or b'')} bytes, expected {size}")
        at = 0
        for name, count in trained.items():
            self._momentum[name] = np.frombuffer(state, np.float32, count, at)
            at += 4 * count

    def apply(
        self, name: int, first: int, old: NDArray[Any], mean: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the new weights of part of a range: ``old - lr * step(old - mean)``, in float64.

        Args:
            name: The range.
            first: The number of the element that the part begins with.
            old: The weights that the round began with.
            mean: The mean of the slots.
        """
        if self._outer.is_plain_mean:
            return mean
        momentum = self._momentum[name][first : first + len(mean)]
        delta = old.astype(np.float64) - mean
        velocity = self._outer.momentum * momentum.astype(np.float64) + delta
        momentum[:] = velocity
        if self._outer.name == "nesterov":
            velocity = delta + self._outer.momentum * velocity
        new: NDArray[np.float64] = old - self._outer.lr * velocity
        return new
