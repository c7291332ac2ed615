"""Merging the slots' contributions into new weights. Pure numerics on flat blobs.

The parameter server's merger drives it. The mean of the slots, weighted by their samples, is summed
in float64 in slot order. So the order of arrival changes no bit, and a single slot comes back
exactly. Then the *outer optimizer* makes the step from the old weights towards that mean. Blobs are
described in ``kubeml.weights.layout``; the arithmetic is in ``kubeml.weights.runs``.

Blobs are fed piece by piece, as they arrive. All slots but the last are folded into sums. The last
slot is folded and turned into new weights in one go, piece by piece: the first new weights are on
their way while the last pieces of the contribution have not even arrived.

Sources: K-AVG, arXiv:1708.01012; weights n_i / n, FedAvg, arXiv:1602.05629.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kubeml.errors import LayoutMismatch, NonFinite
from kubeml.weights.layout import Layout
from kubeml.weights.outer_optimizer import Outer, OuterStep
from kubeml.weights.runs import Run, runs_of
from kubeml.weights.wire_format import WireFormat

Buffer = bytes | bytearray | memoryview


class Merger:
    """Merges the rounds of one job, one after the other; memory O(model), not O(N x model).

    The caller must, for each round, call ``begin``, then ``fold`` all slots but one in an order
    that ``may_fold`` allows, then ``finish`` with the slot that is left. After an exception it must
    ``begin`` again.

    Args:
        layout: The job's layout.
        wire: How contributions travel.
    """

    def __init__(self, layout: Layout, wire: WireFormat) -> None:
        self._layout, self._wire = layout, wire
        self._runs = list(runs_of(layout, wire))
        # Kept from round to round: to get such memory from the system takes longer than to merge.
        self._sums: list[NDArray[Any]] = []
        self.begin()

    def begin(self) -> None:
        """Begin a round."""
        self._folded: list[int] = []
        self._samples = 0

    def may_fold(self, slot: int) -> bool:
        """Return whether the sums keep the same bits if this slot is folded next.

        Slots must come in order, but for the first two, which may be swapped: a + b is b + a.
        """
        if self._folded in ([], [1]):
            return slot == 0 or (slot == 1 and not self._folded)
        return slot == len(self._folded)

    def needs_weights(self, outer: Outer) -> bool:
        """Return whether ``finish`` reads the weights that the round began with."""
        return self._wire.is_delta or not outer.is_plain_mean

    def fold(self, slot: int, num_samples: int) -> "Feed":
        """Fold the next slot's contribution into the sums.

        Args:
            slot: Which one; see ``may_fold``.
            num_samples: Rows it was trained on, > 0.

        Returns:
            A feed for the contribution's pieces. It raises ``BufferConflict`` if a bool or integer
            buffer differs from the other slots'.
        """
        self._require_next(slot)
        if not self._sums:
            self._sums = [run.empty_sums() for run in self._runs]
        is_first = not self._folded

        def take(run: Run, index: int, first: int, array: NDArray[Any]) -> int:
            run.fold(self._sums[index], first, array, num_samples, slot, is_first=is_first)
            return 0

        def close() -> None:
            self._folded.append(slot)
            self._samples += num_samples

        return Feed(self._runs, slot, take, close)

    def finish(
        self,
        slot: int,
        num_samples: int,
        *,
        into: bytearray,
        outer: Outer,
        outer_state: bytearray | None,
    ) -> "Feed":
        """Fold the last slot's contribution, and make the outer step, piece by piece.

        Args:
            slot: Which one; see ``may_fold``.
            num_samples: Rows it was trained on, > 0.
            into: Becomes the new weights blob, from its begin on. If ``needs_weights``, it must
                hold the weights that the contributions were trained from.
            outer: The outer optimizer.
            outer_state: The optimizer's state, float32, which is brought up to date in place; None
                if it has none. ``new_outer_state`` makes the first one.

        Returns:
            A feed for the contribution's pieces. Its ``num_ready`` says how many bytes of
            ``into`` are done. It raises ``BufferConflict``, and ``NotFinite`` if a mean is not
            finite.

        Raises:
            ValueError: A buffer has a wrong length.
        """
        self._require_next(slot)
        if len(into) != self._layout.weights_bytes:
            raise ValueError(f"weights are {len(into)} bytes")
        total = self._samples + num_samples
        step = OuterStep(outer, self._trained(), outer_state)

        def take(run: Run, index: int, first: int, array: NDArray[Any]) -> int:
            sums = self._sums[index][first : first + len(array)] if self._folded else None
            at = run.master_offset + first * run.master.itemsize
            target = np.frombuffer(into, run.master, len(array), at)
            run.finish(sums, array, target, num_samples, total, slot, step, first)
            return at + target.nbytes

        return Feed(self._runs, slot, take, self.begin)

    def require_finite(self, slot: int) -> "Feed":
        """Look for NaN and infinite values in one contribution.

        Returns:
            A feed for the contribution's pieces. It raises ``NonFinite`` if it finds any.
        """

        def take(run: Run, _index: int, first: int, array: NDArray[Any]) -> int:
            if run.is_float and not (good := np.isfinite(run.numbers(array))).all():
                at = first + int(np.flatnonzero(~good)[0])
                raise NonFinite(slot=slot, tensor=run.name_at(at))
            return 0

        return Feed(self._runs, slot, take, lambda: None)

    def new_outer_state(self, outer: Outer) -> bytearray | None:
        """Return the outer optimizer's state before the first merge; None if it has none."""
        return bytearray(4 * sum(self._trained().values())) if outer.has_state else None

    def _trained(self) -> dict[int, int]:
        """Return, for each trained run, its offset in a weights blob and its number of elements."""
        return {run.master_offset: run.count for run in self._runs if run.is_trained}

    def _require_next(self, slot: int) -> None:
        if not self.may_fold(slot):
            raise ValueError(f"slot {slot} cannot come after {self._folded}")


class Feed:
    """A callable that takes the pieces of one contribution blob, in order.

    Attributes:
        num_ready: How many bytes of the new weights are done (``Merger.finish``).

    Raises:
        LayoutMismatch: The blob is longer or shorter than the layout's.
    """

    def __init__(
        self,
        runs: list[Run],
        slot: int,
        take: Callable[[Run, int, int, NDArray[Any]], int],
        close: Callable[[], None],
    ) -> None:
        self._runs, self._slot, self._take, self._close = runs, slot, take, close
        self._index = 0
        self._element = 0
        self._tail = b""
        self.num_ready = 0

    def __call__(self, piece: Buffer) -> None:
        """Take the next piece."""
        if self._tail:
            piece, self._tail = self._tail + bytes(piece), b""
        at = 0
        while at < len(piece):
            if self._index == len(self._runs):
                raise self._mismatch("more bytes")
            run = self._runs[self._index]
            count = min(run.count - self._element, (len(piece) - at) // run.item_bytes)
            if not count:  # half an element: half-precision tensors of odd length precede it
                self._tail = bytes(piece[at:])
                return
            array = np.frombuffer(piece, run.dtype, count, at)
            self.num_ready = self._take(run, self._index, self._element, array)
            at += count * run.item_bytes
            self._element += count
            if self._element == run.count:
                self._index, self._element = self._index + 1, 0

    def close(self) -> None:
        """Note that there are no more pieces."""
        if self._index != len(self._runs) or self._tail:
            raise self._mismatch("fewer bytes")
        self._close()

    def _mismatch(self, got: str) -> LayoutMismatch:
        size = sum(run.count * run.item_bytes for run in self._runs)
        return LayoutMismatch(slot=self._slot, tensor="(all)", expected=f"{size} bytes", got=got)
