"""The one reader of pickles: numpy arrays from .pkl data files, and no code.

A pickle is a program. This reader runs it with only four names to call, all of them defined here,
so that not even numpy's own unpickling code is reached. The pickle can only describe an array, and
the array is then built from plain bytes.
"""

import pickle  # noqa: TID251 - the one restricted reader of .pkl data files
import re
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kubeml.errors import InvalidDataset

_SAVE_HINT = "save the array with numpy.save() and give the .npy file"
_DTYPE = re.compile(r"[?bBhHiIlLqQefd]|[biufc?][0-9]{1,2}|bool")
_FLAWS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    ImportError,
)


def load_pickled_array(path: Path, *, where: str) -> NDArray[Any]:
    """Return the array in a .pkl file.

    Args:
        path: The file, in any pickle protocol, also one by Python 2.
        where: What the array is, for messages.

    Raises:
        InvalidDataset: The pickle names anything but numpy's arrays, or is not one array.
    """
    try:
        with path.open("rb") as file:
            value = _ArrayUnpickler(file, where).load()
        if isinstance(value, _Array):
            return value.build(where)
    except _FLAWS as err:
        raise InvalidDataset(
            where=where, fault=f"is not a pickled array ({_brief(err)})", hint=_SAVE_HINT
        ) from err
    kind = type(value).__name__.lstrip("_").lower()
    raise InvalidDataset(
        where=where, fault=f"holds a {kind}, expected one numpy array", hint=_SAVE_HINT
    )


class _Ndarray:
    """Stands for ``numpy.ndarray``, which is only ever an argument of ``_reconstruct``."""


class _Dtype:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code
        self.byte_order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in {"<", ">", "|", "="}:
            raise ValueError("byte order")
        self.byte_order = order

    def build(self, where: str) -> np.dtype[Any]:
        if isinstance(self.code, str) and self.code.startswith("O"):
            raise InvalidDataset(
                where=where,
                fault="holds Python objects, expected numbers (rows of different lengths?)",
                hint="give every row the same length and a numeric dtype",
            )
        if not isinstance(self.code, str) or not _DTYPE.fullmatch(self.code):
            raise InvalidDataset(
                where=where, fault=f"dtype {str(self.code)[:40]!r} is not supported"
            )
        return np.dtype(self.code).newbyteorder(self.byte_order)  # type: ignore[arg-type]


class _Array:
    """Stands for an array: the pickle's description of it, unchecked until ``build``."""

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, Any, Any, Any] | None = None
        self._axes: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self._state = (shape, dtype, "F" if is_fortran else "C", content)

    @classmethod
    def from_buffer(
        cls, content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
    ) -> "_Array":
        array = cls()
        # Order "K" means C order, with the axes permuted afterwards.
        array._state = (shape, dtype, "F" if order == "F" else "C", content)
        array._axes = axes if order == "K" else None
        return array

    def build(self, where: str) -> NDArray[Any]:
        if self._state is None:
            raise ValueError("an array without content")
        shape, dtype, order, content = self._state
        lengths = shape if isinstance(shape, tuple) else (shape,)
        if not isinstance(dtype, _Dtype) or not all(type(n) is int and n >= 0 for n in lengths):
            raise ValueError("shape or dtype")
        numpy_dtype = dtype.build(where)
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(raw, bytes | bytearray):
            raise TypeError("content")
        if len(raw) != prod(lengths) * numpy_dtype.itemsize:
            raise ValueError(f"{len(raw)} bytes for shape {lengths} of {numpy_dtype}")
        if not raw:
            return np.empty(lengths, numpy_dtype)
        array = np.frombuffer(raw, numpy_dtype).reshape(lengths, order=order)
        return array if self._axes is None else array.transpose(self._axes)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stands for ``_codecs.encode``, by which protocol 2 writes bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Array.from_buffer for core in ("core", "_core")},
}


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], where: str) -> None:
        super().__init__(file, encoding="latin1")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise InvalidDataset(
                where=self._where,
                fault=f"is a pickle that calls {module}.{name}; only numpy arrays are read",
                hint=_SAVE_HINT,
            ) from None


def _brief(err: BaseException) -> str:
    return (str(err).splitlines() or [""])[0][:80] or type(err).__name__
