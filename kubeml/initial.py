"""The blob an INIT hands in: layout, weights and frozen tensors, in one. Pure."""

import json
from collections.abc import Iterator

from kubeml.errors import MalformedMessage
from kubeml.layout import Layout

_MAX_LAYOUT_BYTES = 64 * 2**20


def pack(layout: Layout, weights: bytes | bytearray, frozen: bytes | bytearray) -> bytearray:
    """Return ``length of the layout (8 bytes) | layout as JSON | weights | frozen``."""
    text = json.dumps(layout.to_wire(), separators=(",", ":")).encode()
    return bytearray(len(text).to_bytes(8, "little") + text) + weights + frozen


def unpack(blob: bytes | bytearray) -> tuple[Layout, memoryview, memoryview]:
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
