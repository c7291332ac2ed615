"""The bytes of one shard: a safetensors file with the tensors ``data`` and ``labels``.

It is written and read here rather than by the library, for three reasons: the header is padded so
that both tensors are aligned in a memory map; rows are gathered from the map without a copy of the
shard; and packing makes one copy, not three. Any safetensors reader opens these files.
"""

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brokers.errors import Corrupted

Array = NDArray[Any]

#: The dtypes that a dataset may have: numpy's name to safetensors' name.
SHARD_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}

_TENSORS = ("data", "labels")
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 64 * 1024


def row_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the number of bytes of one row of this dtype and shape."""
    return np.dtype(dtype).itemsize * prod(shape)


def pack_shard(data: Array, labels: Array) -> bytes:
    """Return the file for these rows.

    Args:
        data: Rows on axis 0; a dtype of ``SHARD_DTYPES``, little-endian.
        labels: As many rows.
    """
    arrays = {"data": data, "labels": labels}
    # Wider items come first, so that the narrower ones start at a multiple of their width.
    names = sorted(_TENSORS, key=lambda name: -arrays[name].dtype.itemsize)
    header: dict[str, Any] = {}
    start = 0
    for name in names:
        array = arrays[name]
        header[name] = {
            "dtype": SHARD_DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    parts = [len(text).to_bytes(8, "little"), text]
    return b"".join([*parts, *(_flat_bytes(arrays[name]) for name in names)])


def map_shard(path: Path, *, num_rows: int, rows_like: dict[str, Array]) -> dict[str, Array]:
    """Map a shard into memory and return its tensors, read-only, by name.

    The file may be unlinked or replaced afterwards, since the map keeps its inode. It must never
    be written to.

    Args:
        path: The file.
        num_rows: How many rows it must hold.
        rows_like: ``data`` and ``labels`` to arrays that have the dtype and, past axis 0, the shape
            that each tensor must have.

    Raises:
        Corrupted: The file is not such a shard.
    """
    with path.open("rb") as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as err:  # an empty file cannot be mapped
            raise Corrupted(what=path.name, got="0 bytes", expected="a shard") from err
    try:
        header, start = _read_header(content)
        return {
            name: _view(content, start, header[name], num_rows, rows_like[name])
            for name in _TENSORS
        }
    except (ValueError, KeyError, TypeError) as err:
        fault = f"{type(err).__name__}: {err}"
        raise Corrupted(what=path.name, got=fault, expected="a shard as in its manifest") from err


def _flat_bytes(array: Array) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read_header(content: mmap.mmap) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise TypeError("the header is not an object")
    return header, 8 + length


def _view(
    content: mmap.mmap, start: int, entry: dict[str, Any], num_rows: int, like: Array
) -> Array:
    shape = (num_rows, *like.shape[1:])
    if entry["dtype"] != SHARD_DTYPES[like.dtype.name] or tuple(entry["shape"]) != shape:
        raise ValueError(f"{entry['dtype']} {entry['shape']} for {like.dtype} {shape}")
    first, last = (int(n) for n in entry["data_offsets"])
    if first < 0 or last - first != prod(shape) * like.dtype.itemsize:
        raise ValueError(f"offsets {first}, {last}")
    view = np.frombuffer(content, dtype=like.dtype, count=prod(shape), offset=start + first)
    return view.reshape(shape)
