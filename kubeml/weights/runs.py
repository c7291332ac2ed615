"""The arithmetic of a merge, run by run: a run is as much as one numpy operation can take at once.

``Merger`` feeds it. Sums are float64, and an element's new value does not depend on how its blob
was cut into pieces.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kubeml.errors import BufferConflict
from kubeml.weights.layout import FLOATS, Layout, TensorSpec
from kubeml.weights.outer_optimizer import OuterStep
from kubeml.weights.wire_format import WireFormat

#: How many elements are worked on at a time: their sums (float64) fit into a core's cache.
_BLOCK = 2**15


class NotFinite(Exception):
    """The mean has NaN or infinite values, hence some contribution has."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tensors of one dtype and kind: one numpy operation instead of one per tensor.

    Attributes:
        tensors: The tensors.
        wire_dtype: The dtype in which they travel.
        is_delta: Whether they travel as differences from the round's weights.
        count: Number of elements in all of them.
        master_offset: Where they begin in a weights blob.
    """

    tensors: tuple[TensorSpec, ...]
    wire_dtype: str
    is_delta: bool
    count: int
    master_offset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype in which numpy reads the elements as they travel."""
        # numpy has no bfloat16, which is the upper half of a float32.
        return np.dtype(np.uint16 if self.wire_dtype == "bfloat16" else self.wire_dtype)

    @property
    def item_bytes(self) -> int:
        """Number of bytes of one element as it travels."""
        return self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether the elements have a mean."""
        return self.wire_dtype in FLOATS

    @property
    def is_counter(self) -> bool:
        """Whether they are scalars that count."""
        return _is_counter(self.tensors[0])

    @property
    def is_trained(self) -> bool:
        """Whether the outer optimizer makes a step with them."""
        return self.is_float and self.tensors[0].kind == "param"

    @property
    def master(self) -> np.dtype[Any]:
        """Their dtype in a weights blob."""
        return np.dtype(self.tensors[0].master_dtype)

    def empty_sums(self) -> NDArray[Any]:
        """Return memory for the elements' sums over the slots."""
        return np.empty(self.count, np.float64 if self.is_float else self.dtype)

    def numbers(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return elements that travelled, in a dtype that numpy can calculate with."""
        if self.wire_dtype != "bfloat16":
            return array
        wide = array.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)

    def fold(
        self,
        sums: NDArray[Any],
        first: int,
        array: NDArray[Any],
        num_samples: int,
        slot: int,
        *,
        is_first: bool,
    ) -> None:
        """Add one slot's elements, from number ``first`` of the run on."""
        sums = sums[first : first + len(array)]
        if not self.is_float:
            self._settle(sums, array, slot, first, out=sums, is_first=is_first)
            return
        for part in _blocks(len(array)):
            numbers, target = self.numbers(array[part]), sums[part]
            if is_first:
                np.multiply(numbers, num_samples, out=target, dtype=np.float64)
            else:
                target += np.multiply(numbers, num_samples, dtype=np.float64)

    def finish(
        self,
        sums: NDArray[Any] | None,
        array: NDArray[Any],
        target: NDArray[Any],
        num_samples: int,
        total: int,
        slot: int,
        step: OuterStep,
        first: int,
    ) -> None:
        """Write new weights: the step towards the mean of the sums and the last slot's elements."""
        if not self.is_float:
            others = array if sums is None else sums
            self._settle(others, array, slot, first, out=target, is_first=sums is None)
            return
        for part in _blocks(len(array)):
            numbers, old = self.numbers(array[part]), target[part]
            if sums is None:  # a single slot: not a bit may change
                mean = numbers.astype(np.float64)
            else:
                mean = np.multiply(numbers, num_samples, dtype=np.float64)
                mean += sums[part]
                mean /= total
            if not _is_finite(mean):
                raise NotFinite
            if self.is_delta:
                mean += old
            if self.is_trained:
                mean = step.apply(self.master_offset, first + part.start, old, mean)
            old[:] = mean

    def _settle(
        self,
        others: NDArray[Any],
        array: NDArray[Any],
        slot: int,
        first: int,
        *,
        out: NDArray[Any],
        is_first: bool,
    ) -> None:
        """Settle elements that have no mean: counters take the largest, all others must agree."""
        if self.is_counter and not is_first:
            # A scalar such as BatchNorm's num_batches_tracked becomes that of the furthest slot.
            np.maximum(others, array, out=out)
            return
        if not is_first and not np.array_equal(others, array):
            at = first + int(np.flatnonzero(others != array)[0])
            raise BufferConflict(slot=slot, tensor=self.name_at(at))
        out[:] = array

    def name_at(self, element: int) -> str:
        """Return the name of the tensor that an element of the run belongs to."""
        for tensor in self.tensors:
            if element < tensor.num_elements:
                return tensor.name
            element -= tensor.num_elements
        return self.tensors[-1].name


def _is_finite(block: NDArray[np.float64]) -> bool:
    # A sum is finite only if every element is, and computing it takes a third of the time.
    return bool(np.isfinite(block.sum()) or np.isfinite(block).all())


def _blocks(length: int) -> Iterator[slice]:
    return (slice(low, min(low + _BLOCK, length)) for low in range(0, length, _BLOCK))


def _is_counter(tensor: TensorSpec) -> bool:
    return tensor.dtype not in FLOATS | {"bool"} and tensor.shape == ()


def _merges_like(tensor: TensorSpec) -> tuple[str, str, bool]:
    return tensor.kind, tensor.dtype, _is_counter(tensor)


def runs_of(layout: Layout, wire: WireFormat) -> Iterator[Run]:
    """Yield the runs of the tensors that training moves, in the order of their blobs."""
    offset = 0
    group: list[TensorSpec] = []

    def close() -> Run:
        first, count = group[0], sum(t.num_elements for t in group)
        return Run(tuple(group), wire.dtype(first), wire.sends_delta(first), count, offset)

    for tensor in (t for t in layout.moving if t.num_elements):
        if group and _merges_like(tensor) != _merges_like(group[0]):
            yield close()
            offset += sum(t.master_bytes for t in group)
            group = []
        group.append(tensor)
    if group:
        yield close()
