"""Sums of the losses that user code returns batch by batch, without waiting for an accelerator."""

from typing import Any

import torch

from kubeml.runtime.user_code import as_number

#: Types of devices whose tensors are read at once: there reading waits for nothing, or is refused.
_READ_AT_ONCE = frozenset({"cpu", "meta"})

#: The most tensors left on the device: one reading for so many batches costs nothing.
_KEPT = 1024


class Tally:
    """A sum of losses or accuracies, each weighted by the rows of its batch.

    Numbers, and tensors on the CPU, are read as they come. A tensor on an accelerator stays there:
    reading it would wait for all work of its batch, and leave the device idle until the next batch
    is sent. All these tensors are read together at the end.

    Args:
        where: The user's method that returns the numbers, for errors.
        read_at_once: Types of devices whose tensors are not kept.
    """

    def __init__(self, where: str, *, read_at_once: frozenset[str] = _READ_AT_ONCE) -> None:
        self._where = where
        self._read_at_once = read_at_once
        self._total = 0.0
        self._kept: list[tuple[torch.Tensor | float, int]] = []

    def add(self, value: Any, rows: int) -> None:
        """Add what the user's method returned for a batch of so many rows.

        Raises:
            UserCodeError: The value is neither a number nor a tensor of one real element.
        """
        if self._may_wait(value):
            # A copy is kept: the user may go on writing to their own tensor.
            self._kept.append((value.detach().clone().reshape(()), rows))
            if len(self._kept) == _KEPT:
                self._read()
            return
        number = as_number(value, self._where)
        if self._kept:
            self._kept.append((number, rows))  # keeps the order of the sum
        else:
            self._total += number * rows

    def total(self) -> float:
        """Return the sum of value times rows, in float64 and in the order of the batches."""
        self._read()
        return self._total

    def _may_wait(self, value: Any) -> bool:
        return (
            isinstance(value, torch.Tensor)
            and value.device.type not in self._read_at_once
            and value.layout is torch.strided
            and value.numel() == 1
            and not value.is_complex()
        )

    def _read(self) -> None:
        kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for value, _ in self._kept:
            if isinstance(value, torch.Tensor):
                kinds.setdefault((value.device, value.dtype), []).append(value)
        # One transfer for each kind, in its own dtype: every value is the same as if read alone.
        read = {kind: iter(torch.stack(tensors).tolist()) for kind, tensors in kinds.items()}
        for value, rows in self._kept:
            if isinstance(value, torch.Tensor):
                self._total += float(next(read[value.device, value.dtype])) * rows
            else:
                self._total += value * rows
        self._kept.clear()
