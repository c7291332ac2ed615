"""Merging the slots' contributions into new weights. Pure numerics on flat blobs.

The mean of the slots, weighted by their samples, is summed in float64 in slot order, so that the
order of arrival changes no bit and one slot alone comes back exactly; then the *outer optimizer*
makes the step from the old weights towards that mean. Blobs are described in ``kubeml.layout``.

Sources: K-AVG, arXiv:1708.01012; weights n_i / n, FedAvg, arXiv:1602.05629; ``nesterov``, DiLoCo,
arXiv:2311.08105; ``slowmo``, arXiv:1910.00643.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kubeml.errors import BufferConflict, LayoutMismatch, NonFinite
from kubeml.layout import Layout, TensorSpec

Buffer = bytes | bytearray | memoryview

_FLOATS = {"float64", "float32", "float16", "bfloat16"}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Result of a merge: a new weights blob, and the outer optimizer's state (float32) if any."""

    weights: bytearray
    outer_state: bytearray | None


class Merger:
    """Folds contributions into one accumulator, slot by slot; memory O(model), not O(N x model).

    Duty: ``add`` in ascending slot order, each slot once, then ``finish`` once.
    """

    def __init__(self, layout: Layout, *, total_samples: int) -> None:
        self._layout = layout
        self._total = total_samples
        self._missing = total_samples
        self._runs = _runs(layout)
        self._sums: list[NDArray[Any]] = []

    def add(self, slot: int, blob: Buffer, *, num_samples: int) -> None:
        """Fold one contribution in; nothing changes if it is refused.

        Args:
            slot: Its slot, for messages.
            blob: A contribution blob of the layout.
            num_samples: Rows it was trained on, > 0.

        Raises:
            LayoutMismatch: The blob has another length than the layout's.
            NonFinite: A float tensor has NaN or infinite values.
            BufferConflict: A bool buffer differs from the other slots'.
        """
        if len(blob) != self._layout.contribution_bytes:
            raise LayoutMismatch(
                slot=slot,
                tensor="(all)",
                expected=f"{self._layout.contribution_bytes} bytes",
                got=f"{len(blob)} bytes",
            )
        arrays = [run.read(blob) for run in self._runs]
        for run, array in zip(self._runs, arrays, strict=True):
            run.require_finite(array, slot)
        if self._sums:
            for run, total, array in zip(self._runs, self._sums, arrays, strict=True):
                run.require_agreement(total, array, slot)
        share = num_samples / self._total
        for index, (run, array) in enumerate(zip(self._runs, arrays, strict=True)):
            if not self._sums or len(self._sums) <= index:
                self._sums.append(run.first(array, share))
            else:
                run.fold(self._sums[index], array, share)
        self._missing -= num_samples

    def finish(self, weights: Buffer, outer: Outer, outer_state: Buffer | None) -> Merged:
        """Make the outer step from ``weights`` to the mean of what was added.

        Args:
            weights: The weights blob that the contributions were trained from.
            outer: The outer optimizer.
            outer_state: What the previous merge returned; None before the first.

        Returns:
            A new weights blob and the new outer state. ``weights`` is not changed.

        Raises:
            ValueError: The samples added do not make up the total, or a blob has a wrong length.
        """
        if self._missing:
            raise ValueError(f"{self._missing} of {self._total} samples were not added")
        if len(weights) != self._layout.weights_bytes:
            raise ValueError(f"weights are {len(weights)} bytes")
        merged = bytearray(self._layout.weights_bytes)
        step = _OuterStep(outer, self._runs, outer_state)
        for run, total in zip(self._runs, self._sums, strict=True):
            mean = run.mean(total)
            target = np.frombuffer(merged, run.master, run.count, run.master_offset)
            if run.kind == "param" and run.is_float and not outer.is_plain_mean:
                old = np.frombuffer(weights, run.master, run.count, run.master_offset)
                target[:] = step.apply(run, old, mean)
            else:
                target[:] = mean
        return Merged(weights=merged, outer_state=step.state)


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive tensors of one dtype and kind: one numpy operation instead of one per tensor."""

    kind: str
    dtype: str
    count: int
    offset: int
    master_offset: int
    tensors: tuple[TensorSpec, ...]

    @property
    def is_float(self) -> bool:
        return self.dtype in _FLOATS

    @property
    def is_counter(self) -> bool:
        return _is_counter(self.tensors[0])

    @property
    def master(self) -> np.dtype[Any]:
        return np.dtype(self.tensors[0].master_dtype)

    def read(self, blob: Buffer) -> NDArray[Any]:
        """The run's elements of a contribution, in a dtype that numpy knows; a view if it can."""
        if self.dtype != "bfloat16":
            return np.frombuffer(blob, self.dtype, self.count, self.offset)
        # numpy has no bfloat16: it is the upper half of a float32.
        halves = np.frombuffer(blob, np.uint16, self.count, self.offset)
        return (halves.astype(np.uint32) << 16).view(np.float32)

    def require_finite(self, array: NDArray[Any], slot: int) -> None:
        if not self.is_float or np.isfinite(array).all():
            return
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise NonFinite(slot=slot, tensor=self._name_at(at))

    def require_agreement(self, total: NDArray[Any], array: NDArray[Any], slot: int) -> None:
        if not self.is_float and not self.is_counter and not np.array_equal(total, array):
            at = int(np.flatnonzero(total != array)[0])
            raise BufferConflict(slot=slot, tensor=self._name_at(at))

    def first(self, array: NDArray[Any], share: float) -> NDArray[Any]:
        return array.astype(np.float64) * share if self.is_float else array.copy()

    def fold(self, total: NDArray[Any], array: NDArray[Any], share: float) -> None:
        if self.is_float:
            total += array.astype(np.float64) * share
        elif self.is_counter:
            # A scalar such as BatchNorm's num_batches_tracked: the furthest slot's.
            np.maximum(total, array, out=total)

    def mean(self, total: NDArray[Any]) -> NDArray[Any]:
        return total.astype(self.master)

    def _name_at(self, element: int) -> str:
        for tensor in self.tensors:
            if element < tensor.num_elements:
                return tensor.name
            element -= tensor.num_elements
        return self.tensors[-1].name


class _OuterStep:
    """One outer step over all trained float runs, with its momentum buffer (float32)."""

    def __init__(self, outer: Outer, runs: list[_Run], state: Buffer | None) -> None:
        self._outer = outer
        self._at = 0
        size = 4 * sum(run.count for run in runs if run.kind == "param" and run.is_float)
        self.state: bytearray | None = None
        if outer.has_state:
            self.state = bytearray(state) if state is not None else bytearray(size)
            if len(self.state) != size:
                raise ValueError(f"outer state is {len(self.state)} bytes, expected {size}")

    def apply(self, run: _Run, old: NDArray[Any], mean: NDArray[Any]) -> NDArray[Any]:
        """New weights of one run: ``old - lr * step(old - mean)``, computed in float64."""
        momentum = self._momentum(run.count)
        delta = old.astype(np.float64) - mean
        velocity = self._outer.momentum * momentum.astype(np.float64) + delta
        momentum[:] = velocity
        if self._outer.name == "nesterov":
            velocity = delta + self._outer.momentum * velocity
        new: NDArray[Any] = (old - self._outer.lr * velocity).astype(run.master)
        return new

    def _momentum(self, count: int) -> NDArray[np.float32]:
        if self.state is None:
            raise ValueError("the outer optimizer has no state")
        view = np.frombuffer(self.state, np.float32, count, self._at)
        self._at += 4 * count
        return view


def _is_counter(tensor: TensorSpec) -> bool:
    return tensor.dtype not in _FLOATS | {"bool"} and tensor.shape == ()


def _merges_like(tensor: TensorSpec) -> tuple[str, str, bool]:
    return tensor.kind, tensor.dtype, _is_counter(tensor)


def _runs(layout: Layout) -> list[_Run]:
    return list(_iter_runs(layout))


def _iter_runs(layout: Layout) -> Iterator[_Run]:
    offset = master_offset = 0
    group: list[TensorSpec] = []

    def close() -> _Run:
        count = sum(t.num_elements for t in group)
        return _Run(group[0].kind, group[0].dtype, count, offset, master_offset, tuple(group))

    for tensor in layout.moving:
        if group and _merges_like(tensor) != _merges_like(group[0]):
            run = close()
            yield run
            offset += sum(t.num_bytes for t in group)
            master_offset += sum(t.master_bytes for t in group)
            group = []
        group.append(tensor)
    if group:
        yield close()
