"""Arrays as users have them (.npy, .npz members, .pkl, in memory), read in blocks of rows.

An upload takes its rows from here. Files are read rather than mapped, since the pages of a map
count as this process's memory.
"""

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from brokers.shards.format import SHARD_DTYPES
from kubeml.catalog.pickled_arrays import load_pickled_array
from kubeml.errors import InvalidDataset

Array = NDArray[Any]
Blocks = Callable[[Sequence[int]], Generator[Array, None, None]]

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK"
_FORMATS = "give a .npy file, FILE.npz:MEMBER, or a .pkl file with one numpy array"
_COPY_AGAIN = "copy or save the file again"

#: What numpy's header reader raises: it hands headers to Python's tokenizer and parser.
_HEADER_FAULTS = (
    ValueError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    RecursionError,
    OverflowError,
    LookupError,
    AttributeError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True)
class ArraySource:
    """An array that is known to be usable, and whose rows are not read yet.

    Attributes:
        where: What it is and where it comes from, for messages.
        dtype: numpy's name, a key of ``SHARD_DTYPES``.
        shape: Axis 0 is rows; no axis is empty.
        blocks: Takes numbers of rows that add up to ``shape[0]``, and yields that many rows at a
            time, in order and in native byte order. The caller must close the iterator.
    """

    where: str
    dtype: str
    shape: tuple[int, ...]
    blocks: Blocks

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def as_labels(self) -> "ArraySource":
        """Return it with rows of shape (1,) turned into scalars, as loss functions want labels."""
        if self.row_shape != (1,):
            return self

        def flat_blocks(counts: Sequence[int]) -> Generator[Array, None, None]:
            with closing(self.blocks(counts)) as blocks:
                for block in blocks:
                    yield block.reshape(-1)

        return replace(self, shape=self.shape[:1], blocks=flat_blocks)


def open_array(source: Path | str | Array, *, what: str) -> ArraySource:
    """Return a checked array, whose rows are not read yet.

    Args:
        source: An array; or the path of a .npy or .pkl file; or that of a .npz file, with
            ``:MEMBER`` unless it has just one.
        what: What it is to be (``train data``), for messages.

    Raises:
        InvalidDataset: The file is missing or truncated, or what it has is not an array, is empty,
            or has a dtype (objects, text) that cannot be trained on.
    """
    if isinstance(source, np.ndarray):
        return _from_memory(source, what)
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise InvalidDataset(where=what, fault=f"is a {kind}, expected a path or a numpy array")
    path, member = _split_member(source)
    where = f"{what} {source}"
    with _reading(where):
        with path.open("rb") as file:
            magic = file.read(len(_NPY_MAGIC))
        if magic.startswith(_ZIP_MAGIC):
            return _from_npz(path, member, where)
        if member:
            raise InvalidDataset(where=where, fault="is not a .npz file", hint=_FORMATS)
        if magic == _NPY_MAGIC:
            return _from_npy(path, where)
        if not magic:
            raise InvalidDataset(where=where, fault="is an empty file", hint=_COPY_AGAIN)
        if path.suffix in {".pkl", ".pickle"}:
            return _from_memory(load_pickled_array(path, where=where), where)
    raise InvalidDataset(where=where, fault="is not an array file", hint=_FORMATS)


def _split_member(source: Path | str) -> tuple[Path, str]:
    path = Path(source)
    head, colon, member = str(source).rpartition(":")
    if colon and head and not path.exists():
        return Path(head), member
    return path, ""


def _from_memory(array: Array, where: str) -> ArraySource:
    dtype = _check(array.dtype, array.shape, where)

    def blocks(counts: Sequence[int]) -> Generator[Array, None, None]:
        start = 0
        for count in counts:
            yield array[start : start + count].astype(dtype, copy=False)
            start += count

    return ArraySource(where=where, dtype=dtype, shape=array.shape, blocks=blocks)


def _from_npy(path: Path, where: str) -> ArraySource:
    with path.open("rb") as file:
        shape, is_fortran, stored = _read_header(file, where)
        start = file.tell()
    dtype = _check(stored, shape, where)
    _check_length(path.stat().st_size - start, shape, stored, where)

    def blocks(counts: Sequence[int]) -> Generator[Array, None, None]:
        with _reading(where), path.open("rb", buffering=0) as file:
            file.seek(start)
            read = _fortran_blocks if is_fortran else _plain_blocks
            for block in read(file, counts, shape, stored, where):
                yield block.astype(dtype, copy=False)

    return ArraySource(where=where, dtype=dtype, shape=shape, blocks=blocks)


def _from_npz(path: Path, member: str, where: str) -> ArraySource:
    with zipfile.ZipFile(path) as archive:
        info = _find_member(archive, member, where)
        with archive.open(info) as file:
            shape, is_fortran, stored = _read_header(file, where)
            start = file.tell()
        dtype = _check(stored, shape, where)
        _check_length(info.file_size - start, shape, stored, where)
        if is_fortran:
            # The rows are strewn over the whole member, and a compressed member cannot seek.
            with archive.open(info) as file:
                whole = np.lib.format.read_array(file, allow_pickle=False)
            return _from_memory(whole, where)

    def blocks(counts: Sequence[int]) -> Generator[Array, None, None]:
        with _reading(where), zipfile.ZipFile(path) as archive, archive.open(info) as file:
            file.read(start)
            for block in _plain_blocks(file, counts, shape, stored, where):
                yield block.astype(dtype, copy=False)

    return ArraySource(where=where, dtype=dtype, shape=shape, blocks=blocks)


def _find_member(archive: zipfile.ZipFile, member: str, where: str) -> zipfile.ZipInfo:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if not member and len(members) == 1:
        return next(iter(members.values()))
    if member.removesuffix(".npy") not in members:
        names = ", ".join(sorted(members)[:20]) or "nothing"
        fault = f"has no member {member!r}; it holds {names}" if member else f"holds {names}"
        raise InvalidDataset(where=where, fault=fault, hint="name one member: FILE.npz:MEMBER")
    return members[member.removesuffix(".npy")]


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy file. Objects in it are never unpickled."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file)
    except _HEADER_FAULTS as err:
        fault = f"is not a .npy array ({type(err).__name__}: {str(err)[:80]!r})"
        raise InvalidDataset(where=where, fault=fault, hint=_FORMATS) from err
    fault = f"is a .npy array of version {version}, expected 1.0 or 2.0"
    raise InvalidDataset(where=where, fault=fault, hint="save one plain numeric array")


def _check(dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> str:
    """Return the dtype's name; raise InvalidDataset if such an array cannot be trained on."""
    if dtype.hasobject:
        raise InvalidDataset(
            where=where,
            fault="holds Python objects, expected numbers (rows of different lengths?)",
            hint="give every row the same length and a numeric dtype",
        )
    if dtype.name not in SHARD_DTYPES:
        raise InvalidDataset(
            where=where,
            fault=f"has dtype {dtype}, which is not supported",
            hint="convert it with .astype() to one of " + ", ".join(SHARD_DTYPES),
        )
    if not shape:
        raise InvalidDataset(where=where, fault="is a single value, expected rows")
    if 0 in shape:
        raise InvalidDataset(where=where, fault=f"is empty, its shape is {shape}")
    return dtype.name


def _check_length(num_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    expected = prod(shape) * dtype.itemsize
    if num_bytes < expected:
        fault = f"is truncated: {num_bytes} bytes of array, its header says {expected}"
        raise InvalidDataset(where=where, fault=fault, hint=_COPY_AGAIN)


def _plain_blocks(
    file: IO[bytes], counts: Sequence[int], shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> Iterator[Array]:
    for count in counts:
        block = np.empty((count, *shape[1:]), dtype)
        _read_into(file, block, where)
        yield block


def _fortran_blocks(
    file: IO[bytes], counts: Sequence[int], shape: tuple[int, ...], dtype: np.dtype[Any], where: str
) -> Iterator[Array]:
    """Read column by column: in such a file the values of a row lie ``shape[0]`` items apart."""
    first, row = file.tell(), 0
    for count in counts:
        columns = np.empty((prod(shape[1:]), count), dtype)
        for number, column in enumerate(columns):
            file.seek(first + (number * shape[0] + row) * dtype.itemsize)
            _read_into(file, column, where)
        yield columns.reshape(*reversed(shape[1:]), count).T
        row += count


def _read_into(file: IO[bytes], array: Array, where: str) -> None:
    left = array.reshape(-1).view(np.uint8).data
    while left:
        got = file.readinto(left)  # type: ignore[attr-defined]
        if not got:
            fault = "ended early: it was changed while it was read"
            raise InvalidDataset(where=where, fault=fault, hint=_COPY_AGAIN)
        left = left[got:]


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn what the file system and zip archives raise into InvalidDataset."""
    try:
        yield
    except FileNotFoundError as err:
        raise InvalidDataset(where=where, fault="no such file", hint=_FORMATS) from err
    except OSError as err:
        fault = f"cannot be read ({err.strerror or type(err).__name__})"
        raise InvalidDataset(where=where, fault=fault, hint=_FORMATS) from err
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as err:
        fault = f"is a damaged .npz file ({str(err)[:80]})"
        raise InvalidDataset(where=where, fault=fault, hint=_COPY_AGAIN) from err
