"""The layout of a network's tensors: names, shapes, dtypes, kinds, and where each lies in a blob.

Weights travel as flat *blobs*: the tensors' little-endian bytes one after the other, in layout
order. A blob has no header, since both ends hold the layout and compare its hash. There are three:

- *contribution*: every moving tensor as it travels (what a slot hands in; see
  ``kubeml.weights.wire_format``);
- *weights*: the same with half-precision floats widened to their float32 master (what the
  parameter server keeps and publishes);
- *frozen*: tensors that never move (``requires_grad=False`` parameters), sent once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, Self

from kubeml.errors import MalformedMessage

Kind = Literal["param", "buffer", "frozen"]

#: Bytes of one element, for every dtype a state_dict may hold (torch's names).
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

#: The dtypes that have a mean.
FLOATS = {"float64", "float32", "float16", "bfloat16"}

#: The dtype in which the parameter server keeps a tensor, where it is another one.
MASTER = {"float16": "float32", "bfloat16": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor of a network.

    Attributes:
        name: Its first name in the ``state_dict``.
        shape: Axis lengths; ``()`` for a scalar.
        dtype: torch's name of the dtype, a key of ``ITEM_BYTES``.
        kind: ``param`` (trained), ``buffer`` (BatchNorm statistics and the like) or ``frozen``.
        aliases: Further names of the same storage (tied parameters).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: Kind
    aliases: tuple[str, ...] = ()

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Number of bytes in its own dtype."""
        return self.num_elements * ITEM_BYTES[self.dtype]

    @property
    def master_dtype(self) -> str:
        """The dtype it has on the parameter server."""
        return MASTER.get(self.dtype, self.dtype)

    @property
    def master_bytes(self) -> int:
        """Number of bytes in its master dtype."""
        return self.num_elements * ITEM_BYTES[self.master_dtype]


@dataclass(frozen=True)
class Layout:
    """All tensors of a network, in blob order."""

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def moving(self) -> tuple[TensorSpec, ...]:
        """The tensors that training changes: parameters and buffers."""
        return tuple(t for t in self.tensors if t.kind != "frozen")

    @cached_property
    def frozen(self) -> tuple[TensorSpec, ...]:
        """The tensors that never change."""
        return tuple(t for t in self.tensors if t.kind == "frozen")

    @cached_property
    def weights_bytes(self) -> int:
        """Length of a weights blob."""
        return sum(t.master_bytes for t in self.moving)

    @cached_property
    def frozen_bytes(self) -> int:
        """Length of the frozen blob."""
        return sum(t.num_bytes for t in self.frozen)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, shapes, dtypes, kinds and aliases; only equal layouts share it."""
        return hashlib.sha256(json.dumps(self.to_wire(), sort_keys=True).encode()).hexdigest()

    def to_wire(self) -> list[dict[str, Any]]:
        """Return the layout as JSON-able values."""
        return [
            {
                "name": t.name,
                "shape": list(t.shape),
                "dtype": t.dtype,
                "kind": t.kind,
                "aliases": list(t.aliases),
            }
            for t in self.tensors
        ]

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a layout.

        Raises:
            MalformedMessage: Fields, dtypes or kinds are missing or unknown.
        """
        try:
            return cls(tuple(_spec_from_wire(row) for row in wire))
        except (TypeError, KeyError, ValueError) as err:
            raise MalformedMessage(what="layout", fault=str(err)) from err


def _spec_from_wire(row: Mapping[str, Any]) -> TensorSpec:
    spec = TensorSpec(
        name=str(row["name"]),
        shape=tuple(int(n) for n in row["shape"]),
        dtype=row["dtype"],
        kind=row["kind"],
        aliases=tuple(str(a) for a in row["aliases"]),
    )
    if spec.dtype not in ITEM_BYTES or spec.kind not in {"param", "buffer", "frozen"}:
        raise ValueError(f"{spec.name}: dtype {spec.dtype!r}, kind {spec.kind!r}")
    if any(n < 0 for n in spec.shape):
        raise ValueError(f"{spec.name}: shape {spec.shape}")
    return spec


_MAX_LAYOUT_BYTES = 64 * 2**20


def pack_initial(
    layout: Layout, weights: bytes | bytearray, frozen: bytes | bytearray
) -> bytearray:
    """Return ``length of the layout (8 bytes) | layout as JSON | weights | frozen``."""
    text = json.dumps(layout.to_wire(), separators=(",", ":")).encode()
    return bytearray(len(text).to_bytes(8, "little") + text) + weights + frozen


def unpack_initial(blob: bytes | bytearray) -> tuple[Layout, memoryview, memoryview]:
    """Return the layout, and views of the weights and frozen blobs.

    Raises:
        MalformedMessage: The lengths do not fit the layout.
    """
    view = memoryview(blob)
    length = int.from_bytes(view[:8], "little")
    if length > min(_MAX_LAYOUT_BYTES, len(view)):
        raise MalformedMessage(what="initial weights", fault=f"layout of {length} bytes")
    try:
        layout = Layout.from_wire(json.loads(bytes(view[8 : 8 + length])))
    except ValueError as err:
        raise MalformedMessage(what="initial weights", fault=str(err)) from err
    parts = list(_split(view[8 + length :], layout.weights_bytes, layout.frozen_bytes))
    if sum(map(len, parts)) != len(view) - 8 - length or len(parts[0]) != layout.weights_bytes:
        raise MalformedMessage(what="initial weights", fault=f"{len(view)} bytes do not fit")
    return layout, parts[0], parts[1]


def _split(view: memoryview, *lengths: int) -> Iterator[memoryview]:
    start = 0
    for length in lengths:
        yield view[start : start + length]
        start += length
