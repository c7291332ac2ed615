"""How contributions travel: as they are, or as differences in half the bytes. Pure.

``fp32`` sends every tensor in its own dtype. ``bf16`` sends trained float32 tensors as their
difference from the weights that the round began with, in bfloat16. That difference is small against
the weights, so eight significant bits of it are worth more than eight of the weights. The sums are
float64 and the weights stay float32 all the same.
"""

from dataclasses import dataclass

from kubeml.weights.layout import ITEM_BYTES, Layout, TensorSpec

WIRES = ("fp32", "bf16")


@dataclass(frozen=True, slots=True)
class WireFormat:
    """One of ``WIRES``, by name."""

    name: str = "fp32"

    @property
    def is_delta(self) -> bool:
        """Whether some tensors travel as their difference from the round's weights."""
        return self.name == "bf16"

    def sends_delta(self, tensor: TensorSpec) -> bool:
        """Return whether this tensor travels as its difference from the round's weights."""
        return self.is_delta and tensor.kind == "param" and tensor.dtype == "float32"

    def dtype(self, tensor: TensorSpec) -> str:
        """Return the dtype (torch's name) in which a tensor travels."""
        return "bfloat16" if self.sends_delta(tensor) else tensor.dtype

    def num_bytes(self, layout: Layout) -> int:
        """Return the length of a contribution blob."""
        return sum(t.num_elements * ITEM_BYTES[self.dtype(t)] for t in layout.moving)


FP32 = WireFormat("fp32")
