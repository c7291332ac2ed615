import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kubeml.catalog.arrays import ArraySource, open_array
from kubeml.errors import InvalidDataset

Array = NDArray[Any]
ROWS = np.arange(7 * 3 * 2, dtype=np.float32).reshape(7, 3, 2)


def npy(path: Path, array: Array) -> str:
    np.save(path / "x.npy", array)
    return str(path / "x.npy")


def npz(path: Path, array: Array) -> str:
    np.savez(path / "x.npz", other=np.zeros(3), images=array)
    return f"{path / 'x.npz'}:images"


def compressed_npz(path: Path, array: Array) -> str:
    np.savez_compressed(path / "x.npz", array)
    return str(path / "x.npz")


def pkl(protocol: int) -> Callable[[Path, Array], str]:
    def write(path: Path, array: Array) -> str:
        (path / "x.pkl").write_bytes(pickle.dumps(array, protocol=protocol))
        return str(path / "x.pkl")

    return write


FORMATS = {
    "npy": npy, "npz-member": npz, "npz-compressed": compressed_npz,
    "pkl-2": pkl(2), "pkl-3": pkl(3), "pkl-4": pkl(4), "pkl-5": pkl(5),
}  # fmt: skip
LAYOUTS = {
    "c-order": ROWS,
    "fortran-order": np.asfortranarray(ROWS),
    "permuted-axes": np.arange(7 * 3 * 2, dtype=np.float32).reshape(2, 7, 3).transpose(1, 2, 0),
    "big-endian": ROWS.astype(">f4"),
    "one-axis": np.arange(7),
    "bool": ROWS > 5,
    "float16": ROWS.astype(np.float16),
    "uint64": ROWS.astype(np.uint64),
}


def read(source: ArraySource, counts: list[int]) -> list[Array]:
    return [block.copy() for block in source.blocks(counts)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMATS)
def test_array_reads_in_blocks_as_it_was_saved(tmp_path: Path, form: str, layout: str) -> None:
    array = LAYOUTS[layout]
    path = FORMATS[form](tmp_path, array)

    source = open_array(path, what="train data")
    blocks = read(source, [2, 4, 1])

    assert (source.shape, source.dtype) == (array.shape, array.dtype.name)
    assert [len(block) for block in blocks] == [2, 4, 1]
    assert all(block.dtype.isnative for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), array)


def test_array_in_memory_reads_as_it_is() -> None:
    array = ROWS[::-1].astype(">f8")

    source = open_array(array, what="train data")

    np.testing.assert_array_equal(np.concatenate(read(source, [3, 4])), array)


def test_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.pkl"
    path.write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'i2'\nI0\nI1\ntR(I3\nS'>'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x00\\x01\\x00\\xff'\ntb."
    )

    blocks = read(open_array(path, what="labels"), [2])

    assert blocks[0].tolist() == [1, 255]


def test_labels_of_one_column_become_scalars(tmp_path: Path) -> None:
    column = open_array(npy(tmp_path, np.arange(5).reshape(5, 1)), what="labels").as_labels()
    table = open_array(np.zeros((5, 2)), what="labels").as_labels()

    assert column.shape == (5,)
    assert [block.tolist() for block in read(column, [2, 3])] == [[0, 1], [2, 3, 4]]
    assert table.shape == (5, 2)


def truncated(path: Path) -> str:
    name = npy(path, ROWS)
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[:-4])
    return name


def truncated_header(path: Path) -> str:
    name = npy(path, ROWS)
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[:50])
    return name


def truncated_npz(path: Path) -> str:
    compressed_npz(path, ROWS)
    (path / "x.npz").write_bytes((path / "x.npz").read_bytes()[:-20])
    return str(path / "x.npz")


def member_shorter_than_its_header(path: Path) -> str:
    name = truncated(path)
    with zipfile.ZipFile(path / "x.npz", "w") as archive:
        archive.write(name, "x.npy")
    return str(path / "x.npz")


def content(data: bytes, name: str = "x.npy") -> Callable[[Path], str]:
    def write(path: Path) -> str:
        (path / name).write_bytes(data)
        return str(path / name)

    return write


def ragged() -> Array:
    rows = np.empty(2, dtype=object)
    rows[:] = [[1], [2, 3]]
    return rows


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no-file": (lambda path: path / "none.npy", "no such file"),
    "directory": (lambda path: path, "cannot be read"),
    "empty-file": (content(b""), "is an empty file"),
    "text-file": (content(b"1,2,3\n"), "is not an array file"),
    "truncated-npy": (truncated, "is truncated: 164 bytes of array, its header says 168"),
    "truncated-header": (truncated_header, "is not a .npy array"),
    "npy-of-objects": (lambda path: npy(path, ragged()), "holds Python objects"),
    "npz-of-objects": (lambda path: npz(path, ragged()), "holds Python objects"),
    "pkl-of-objects": (lambda path: pkl(4)(path, ragged()), "holds Python objects"),
    "objects-in-memory": (lambda _: ragged(), "holds Python objects"),
    "list": (lambda _: [1, 2], "is a list"),
    "text-array": (lambda path: npy(path, np.array(["a", "b"])), "has dtype <U1"),
    "text-pkl": (lambda path: pkl(4)(path, np.array(["a"])), "dtype 'U1' is not supported"),
    "complex": (lambda path: npy(path, ROWS.astype(complex)), "has dtype complex128"),
    "records": (lambda path: npy(path, np.zeros(3, "i4,f4")), "which is not supported"),
    "no-rows": (lambda path: npy(path, ROWS[:0]), "is empty, its shape is (0, 3, 2)"),
    "empty-rows": (lambda path: npy(path, ROWS[:, :0]), "is empty, its shape is (7, 0, 2)"),
    "pkl-no-rows": (lambda path: pkl(5)(path, ROWS[:0]), "is empty"),
    "scalar": (lambda path: npy(path, np.array(3.0)), "is a single value"),
    "unknown-member": (lambda path: npz(path, ROWS) + "x", "it holds images, other"),
    "unnamed-member": (lambda path: npz(path, ROWS).removesuffix(":images"), "images, other"),
    "member-of-npy": (lambda path: npy(path, ROWS) + ":x", "is not a .npz file"),
    "truncated-npz": (truncated_npz, "is a damaged .npz file"),
    "truncated-member": (member_shorter_than_its_header, "is truncated: 164 bytes"),
    "pkl-of-list": (lambda path: pkl(4)(path, [1, 2]), "holds a list"),  # type: ignore[arg-type]
    "pkl-of-dict": (lambda path: pkl(4)(path, {"x": ROWS}), "holds a dict"),  # type: ignore[arg-type]
    "pkl-truncated": (content(pickle.dumps(ROWS)[:-30], "x.pkl"), "is not a pickled array"),
    "pkl-of-noise": (content(b"\x80\x04noise", "x.pkl"), "is not a pickled array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_array_is_refused_saying_why(tmp_path: Path, case: str) -> None:
    make, fault = REFUSED[case]
    source = make(tmp_path)

    with pytest.raises(InvalidDataset) as refusal:
        open_array(source, what="train data")

    assert fault in str(refusal.value)
    assert str(refusal.value).startswith("train data")
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == 6


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_that_would_run_code_is_refused_by_name_and_not_run(
    tmp_path: Path, protocol: int
) -> None:
    marker = tmp_path / "was-run"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil(marker), protocol=protocol))

    with pytest.raises(InvalidDataset, match=r"calls (pathlib|builtins|__builtin__)\.") as refusal:
        open_array(path, what="train data")

    assert not marker.exists()
    assert "numpy.save" in refusal.value.hint


@pytest.mark.parametrize(
    "name", ["os system", "builtins eval", "numpy load", "numpy fromfile", "numpy dtype.mro"]
)
def test_pickle_may_name_nothing_but_arrays(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pkl"
    module, attribute = name.split()
    path.write_bytes(f"c{module}\n{attribute}\n.".encode())

    with pytest.raises(InvalidDataset, match=f"calls {module}.{attribute}"):
        open_array(path, what="train data")


def test_pickle_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    honest = pickle.dumps(np.zeros(200, np.uint8), protocol=4)
    path.write_bytes(honest.replace(b"K\xc8\x85", b"K\xc9\x85"))  # 201 rows

    with pytest.raises(InvalidDataset, match="200 bytes for shape"):
        open_array(path, what="train data")


def test_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = Path(npy(tmp_path, ROWS))
    source = open_array(path, what="train data")
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(InvalidDataset, match="ended early"):
        read(source, [7])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_damaged_npz_member_is_refused_when_it_has_been_read(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    path = tmp_path / "x.npz"
    noise = np.random.default_rng(0).integers(0, 256, (1000, 64), dtype=np.uint8)
    save(path, noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    source = open_array(path, what="train data")

    with pytest.raises(InvalidDataset, match="damaged"):
        read(source, [500, 500])
