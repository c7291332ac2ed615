"""Whatever file is uploaded is read, or refused by name: no other error, no hang, nothing run."""

import contextlib
import hashlib
import io
import pickle
import tempfile
import warnings
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.errors import KubemlError
from brokers.shards.format import map_shard, pack_shard
from kubeml.catalog.arrays import open_array
from kubeml.catalog.bundle import read_sources, unpack
from kubeml.catalog.pickled_arrays import load_pickled_array

QUICK = settings(max_examples=200, deadline=None, derandomize=True)
ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, ROWS)
    return file.getvalue()


def npz(*, compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, x=ROWS)
    return file.getvalue()


def bundle(**files: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (files or {"main.py": "def main():\n    pass\n"}).items():
            archive.writestr(name, text)
    return file.getvalue()


FILES = {
    "x.npy": npy(),
    "x.npz": npz(compressed=False),
    "y.npz": npz(compressed=True),
    "x.pkl": pickle.dumps(ROWS, protocol=4),
    "y.pkl": pickle.dumps(ROWS, protocol=2),
}


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """Some bytes changed, cut off, doubled or put in."""
    spoilt = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(spoilt) - 1)))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip" if spoilt:
                spoilt[at] ^= draw(st.integers(1, 255))
            case "cut":
                del spoilt[at:]
            case "insert":
                spoilt[at:at] = draw(st.binary(max_size=12))
            case "repeat":
                spoilt[at:at] = spoilt[at : at + 16]
    return bytes(spoilt)


def read_all(path: Path) -> None:
    source = open_array(path, what="train data")
    if source.num_bytes < 1 << 24:
        with closing(source.blocks([source.num_rows])) as blocks:
            assert [len(block) for block in blocks] == [source.num_rows]


@pytest.mark.parametrize("name", FILES)
@QUICK
@given(data=st.data())
def test_damaged_data_files_are_read_or_refused(name: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data.draw(damage(FILES[name])))
        with contextlib.suppress(KubemlError):
            read_all(path)


@QUICK
@given(data=st.data())
def test_damaged_bundles_are_unpacked_or_refused(data: st.DataObject) -> None:
    spoilt = data.draw(damage(bundle()))
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(KubemlError):
            unpack(spoilt, hashlib.sha256(spoilt).hexdigest(), Path(folder) / "in")
        outside = [p for p in Path(folder).rglob("*") if Path(folder) / "in" not in (p, *p.parents)]
        assert outside == []
    with contextlib.suppress(KubemlError):
        read_sources(spoilt)


@pytest.mark.parametrize(
    "name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py", "..\\evil.py", "a\0b.py", "con\n.py"]
)
def test_bundles_that_would_write_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    data = bundle(**{name: "x = 1\n", "main.py": "def main(): ...\n"})

    with contextlib.suppress(KubemlError):
        unpack(data, hashlib.sha256(data).hexdigest(), tmp_path / "in")

    assert not (tmp_path / "evil.py").exists()
    assert not Path("/tmp/evil.py").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"in"}


def test_a_bundle_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    data = bundle(**{"main.py": "def main(): ...\n", "bomb.txt": "0" * (200 << 20)})
    assert len(data) < 1 << 20

    with pytest.raises(KubemlError):
        unpack(data, hashlib.sha256(data).hexdigest(), tmp_path)


def test_a_header_that_promises_more_than_there_is_costs_nothing(tmp_path: Path) -> None:
    header = npy().replace(b"(6, 4)", b"(6000000000, 4)"[:15])
    (tmp_path / "x.npy").write_bytes(header)

    with pytest.raises(KubemlError):
        open_array(tmp_path / "x.npy", what="train data")


@QUICK
@given(data=st.data())
def test_damaged_shards_are_read_or_refused(data: st.DataObject) -> None:
    labels = np.arange(6, dtype=np.int64)
    spoilt = data.draw(damage(pack_shard(ROWS, labels)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        path.write_bytes(spoilt)
        with contextlib.suppress(KubemlError):
            rows: dict[str, Any] = map_shard(
                path, num_rows=6, rows_like={"data": ROWS[:0], "labels": labels[:0]}
            )
            assert len(rows["data"]) == 6


@QUICK
@given(st.binary(max_size=200))
def test_arbitrary_pickles_are_refused_and_never_run(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pkl"
        path.write_bytes(b"\x80\x04" + data)
        with contextlib.suppress(KubemlError):
            load_pickled_array(path, where="x.pkl")


def test_a_bundle_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    for names in (("main.py", "main.py"), ("a", "a/b.py")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                archive.writestr(name, "x = 1\n")
        data = file.getvalue()

        with pytest.raises(KubemlError):
            unpack(data, hashlib.sha256(data).hexdigest(), tmp_path)
