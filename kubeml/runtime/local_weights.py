"""The weights that a slot of a job with ``--overlap`` begins a round with, and hands in after it.

In every round of an epoch but the first, a slot begins with its *local weights*, which are those it
handed in for the round before: it need not wait for their merge. It hands in the merged weights
that the round began with, plus its own progress: ``merged + (end - start)``.

Source: CoCoD-SGD, arXiv:1906.12043; compare Overlap Local-SGD, arXiv:2002.09539.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import torch

from kubeml.errors import LayoutMismatch
from kubeml.weights.layout import Layout
from kubeml.weights.wire_format import FP32

Buffer = bytes | bytearray


def corrected(layout: Layout, *, merged: Buffer, start: Buffer, end: bytearray) -> bytearray:
    """Return ``end``, changed in place into the contribution ``merged + (end - start)``.

    Floats, also those of buffers, are computed in their master dtype (float32 for half-precision
    ones), in this order of operations. Integers and bools stay as they are in ``end``. As long as
    all slots have equal shares, the mean of what they contribute is the mean of their ``end``.

    Args:
        layout: The layout of all three blobs.
        merged: The weights blob that the round began with; not changed.
        start: The contribution blob that the slot began with; not changed.
        end: The contribution blob that the slot ended with.

    Raises:
        LayoutMismatch: A blob has another length than the layout's.
    """
    _require_length(merged, layout.weights_bytes)
    _require_length(start, FP32.num_bytes(layout))
    _require_length(end, FP32.num_bytes(layout))
    for run in _runs(layout):
        if run.native.is_floating_point:
            base = run.of_weights(merged)
            progress = run.of_contribution(end).to(run.master) - run.of_contribution(start)
            run.of_contribution(end).copy_(progress.add_(base))
    return end


def widened(layout: Layout, contribution: Buffer) -> Buffer:
    """Return a contribution blob as a weights blob: the same blob if it has no half precision.

    Raises:
        LayoutMismatch: The blob has another length than the layout's.
    """
    _require_length(contribution, FP32.num_bytes(layout))
    if layout.weights_bytes == FP32.num_bytes(layout):
        return contribution
    weights = bytearray(layout.weights_bytes)
    for run in _runs(layout):
        run.of_weights(weights).copy_(run.of_contribution(contribution))
    return weights


class _Run(NamedTuple):
    """Tensors of one dtype that lie side by side: one operation instead of one per tensor."""

    native: torch.dtype
    master: torch.dtype
    length: int
    offset: int
    master_offset: int

    def of_contribution(self, blob: Buffer) -> torch.Tensor:
        return torch.frombuffer(blob, dtype=self.native, count=self.length, offset=self.offset)

    def of_weights(self, blob: Buffer) -> torch.Tensor:
        return torch.frombuffer(
            blob, dtype=self.master, count=self.length, offset=self.master_offset
        )


def _runs(layout: Layout) -> Iterator[_Run]:
    offset = master_offset = 0
    for (dtype, master_dtype), group in groupby(
        layout.moving, key=lambda spec: (spec.dtype, spec.master_dtype)
    ):
        count = sum(spec.num_elements for spec in group)
        native: torch.dtype = getattr(torch, dtype)
        master: torch.dtype = getattr(torch, master_dtype)
        if count:
            yield _Run(native, master, count, offset, master_offset)
        offset += count * native.itemsize
        master_offset += count * master.itemsize


def _require_length(blob: Buffer, length: int) -> None:
    if len(blob) != length:
        raise LayoutMismatch(
            slot=0, tensor="(all)", expected=f"{length} bytes", got=f"{len(blob)} bytes"
        )
