"""A checkpoint as a torch ``state_dict``: every name, the native dtypes, tied tensors shared."""

from typing import TYPE_CHECKING

from kubeml.jobs.checkpoint import Buffer, Checkpoint, Checkpoints
from kubeml.weights.layout import TensorSpec

if TYPE_CHECKING:
    import torch


def load_state_dict(checkpoints: Checkpoints, checkpoint: Checkpoint) -> "dict[str, torch.Tensor]":
    """Read a checkpoint's tensors.

    Returns:
        Name to CPU tensor in its own dtype, with the names that ``nn.Module.state_dict`` has.
    """
    layout = checkpoint.layout
    tensors = _unpack(checkpoints.tensors(checkpoint.weights), layout.moving, masters=True)
    if checkpoint.frozen is not None:
        frozen = checkpoints.tensors(checkpoint.frozen)
        tensors |= _unpack(frozen, layout.frozen, masters=False)
    return tensors


def _unpack(
    blob: Buffer, specs: tuple[TensorSpec, ...], *, masters: bool
) -> "dict[str, torch.Tensor]":
    # Imported here: torch takes seconds, which a program that only submits must not pay.
    import torch

    tensors: dict[str, torch.Tensor] = {}
    data = bytearray(blob)
    offset = 0
    for spec in specs:
        stored = spec.master_dtype if masters else spec.dtype
        length = spec.master_bytes if masters else spec.num_bytes
        flat = (
            torch.frombuffer(
                data, dtype=getattr(torch, stored), count=spec.num_elements, offset=offset
            )
            if length
            else torch.empty(0, dtype=getattr(torch, stored))
        )
        offset += length
        tensor = flat.to(getattr(torch, spec.dtype)).reshape(spec.shape).clone()
        for name in (spec.name, *spec.aliases):
            tensors[name] = tensor
    return tensors
