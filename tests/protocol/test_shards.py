import tracemalloc
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import safetensors.numpy
from msgspec.structs import replace
from numpy.typing import NDArray

from brokers.errors import Corrupted, InvalidSetting, ObjectMissing
from brokers.objects.store import ObjectStore
from brokers.shards.cache import ShardCache
from brokers.shards.format import SHARD_DTYPES, map_shard, pack_shard
from brokers.shards.manifest import DatasetManifest
from brokers.shards.reader import ShardReader
from kubeml.catalog import upload
from kubeml.catalog.datasets import Datasets

Array = NDArray[Any]
NUM_ROWS = 1000


def make_arrays(dtype: str = "float32", *, num_rows: int = NUM_ROWS) -> tuple[Array, Array]:
    data = np.arange(num_rows * 6).reshape(num_rows, 2, 3) % 251
    return data.astype(dtype), np.arange(num_rows)


@pytest.fixture
def stored(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> DatasetManifest:
    """A dataset of 1000 rows in shards of 4 KiB."""
    monkeypatch.setattr(upload, "SHARD_BYTES", 4096)
    data, labels = make_arrays()
    return Datasets(objects).create(
        f"set-{uuid4().hex[:12]}",
        train_data=data,
        train_labels=labels,
        test_data=data[:10],
        test_labels=labels[:10],
    )


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 10**8)


@pytest.mark.parametrize("labels_dtype", ["uint8", "float64"])
@pytest.mark.parametrize("dtype", SHARD_DTYPES)
def test_shard_is_a_safetensors_file_with_aligned_tensors(
    tmp_path: Path, dtype: str, labels_dtype: str
) -> None:
    data, labels = make_arrays(dtype, num_rows=7)
    labels = labels.astype(labels_dtype)
    path = tmp_path / "shard"

    path.write_bytes(pack_shard(data, labels))
    theirs = safetensors.numpy.load_file(path)
    ours = map_shard(path, num_rows=7, rows_like={"data": data, "labels": labels})

    for name, array in (("data", data), ("labels", labels)):
        np.testing.assert_array_equal(theirs[name], array, strict=True)
        np.testing.assert_array_equal(ours[name], array, strict=True)
        assert ours[name].flags.aligned
        assert not ours[name].flags.writeable


@pytest.mark.parametrize(
    "like",
    [
        {"data": np.zeros((7, 6), "f4"), "labels": np.zeros(7, "i8")},
        {"data": np.zeros((7, 2, 3), "i4"), "labels": np.zeros(7, "i8")},
        {"data": np.zeros((7, 2, 3), "f4"), "labels": np.zeros((7, 2), "i8")},
    ],
    ids=["shape", "dtype", "labels"],
)
def test_shard_that_differs_from_its_manifest_is_refused(
    tmp_path: Path, like: dict[str, Array]
) -> None:
    path = tmp_path / "shard"
    path.write_bytes(pack_shard(*make_arrays(num_rows=7)))

    with pytest.raises(Corrupted, match="expected a shard as in its manifest"):
        map_shard(path, num_rows=7, rows_like=like)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 4, b"\xff" * 100, b"\x02" + b"\x00" * 7 + b"[]", b"\x02" + b"\x00" * 7 + b"{}"],
    ids=["empty", "short", "huge-header", "list", "no-tensors"],
)
def test_file_that_is_no_shard_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "shard"
    path.write_bytes(content)

    with pytest.raises(Corrupted):
        map_shard(path, num_rows=1, rows_like={"data": np.zeros(1), "labels": np.zeros(1)})


ROWS = {
    "all": np.arange(NUM_ROWS),
    "backwards": np.arange(NUM_ROWS)[::-1],
    "random-over-shards": np.random.default_rng(1).integers(0, NUM_ROWS, 500),
    "repeated": np.array([5, 5, 999, 5, 0]),
    "one-shard": np.array([3, 1, 2]),
    "last": np.array([NUM_ROWS - 1]),
    "none": np.array([], dtype=np.int64),
}


@pytest.mark.parametrize("case", ROWS)
def test_gathered_rows_are_those_of_the_array_in_the_order_asked_for(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache, case: str
) -> None:
    data, labels = make_arrays()
    rows = ROWS[case]
    assert len(stored.train.shards) > 5

    got_data, got_labels = ShardReader(stored, objects=objects, cache=cache).gather("train", rows)

    np.testing.assert_array_equal(got_data, data[rows], strict=True)
    np.testing.assert_array_equal(got_labels, labels[rows], strict=True)
    assert got_data.flags.writeable
    assert got_labels.flags.writeable


def test_splits_are_read_apart(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache
) -> None:
    reader = ShardReader(stored, objects=objects, cache=cache)

    _, labels = reader.gather("test", np.arange(10))

    assert labels.tolist() == list(range(10))
    with pytest.raises(IndexError, match="test rows 0 to 10 of 10"):
        reader.gather("test", np.arange(11))


@pytest.mark.parametrize("row", [-1, NUM_ROWS])
def test_row_outside_the_split_is_refused(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache, row: int
) -> None:
    reader = ShardReader(stored, objects=objects, cache=cache)

    with pytest.raises(IndexError, match=f"of {NUM_ROWS}"):
        reader.gather("train", np.array([0, row]))


def test_only_the_shards_of_the_rows_asked_for_are_downloaded(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache
) -> None:
    reader = ShardReader(stored, objects=objects, cache=cache)

    reader.gather("train", np.array([0, NUM_ROWS - 1]))

    first, last = stored.train.shards[0], stored.train.shards[-1]
    assert cache.num_bytes() == first.num_bytes + last.num_bytes


def test_second_reader_needs_no_server(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache
) -> None:
    rows = np.arange(NUM_ROWS)
    ShardReader(stored, objects=objects, cache=cache).gather("train", rows)
    objects.delete_prefix(f"datasets/{stored.name}/")

    _, labels = ShardReader(stored, objects=objects, cache=cache).gather("train", rows)

    assert labels.tolist() == rows.tolist()


def test_shard_that_changed_on_the_server_is_refused(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache
) -> None:
    key = stored.train.shards[0].key
    content = bytearray(objects.get(key))
    content[-1] ^= 1
    objects.put(key, content)

    with pytest.raises(Corrupted, match="SHA-256"):
        ShardReader(stored, objects=objects, cache=cache).gather("train", np.array([0]))

    assert cache.num_bytes() == 0


def test_shard_of_a_deleted_dataset_is_missing(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache
) -> None:
    Datasets(objects).delete(stored.name)

    with pytest.raises(ObjectMissing, match=r"train-00000\.safetensors"):
        ShardReader(stored, objects=objects, cache=cache).gather("train", np.array([0]))


def test_set_larger_than_the_cache_is_read_within_its_bound(
    objects: ObjectStore, stored: DatasetManifest, tmp_path: Path
) -> None:
    data, _ = make_arrays()
    cache = ShardCache(tmp_path, 3 * 4096)
    reader = ShardReader(stored, objects=objects, cache=cache)
    rows = np.random.default_rng(2).permutation(NUM_ROWS)

    got, _ = reader.gather("train", rows)

    np.testing.assert_array_equal(got, data[rows])
    assert cache.num_bytes() <= 3 * 4096
    assert sum(entry.shard.num_bytes for entry in reader._maps.values()) <= 3 * 4096


def test_shard_that_cannot_stay_in_the_cache_is_an_error_not_a_loop(
    objects: ObjectStore, stored: DatasetManifest, tmp_path: Path
) -> None:
    class Thrashed(ShardCache):
        """A cache from which other processes push every file at once."""

        def get(self, sha256: str, fetch: Any) -> Path:
            path = super().get(sha256, fetch)
            path.unlink()
            return path

    reader = ShardReader(stored, objects=objects, cache=Thrashed(tmp_path, 10**6))

    with pytest.raises(InvalidSetting, match="cache_bytes"):
        reader.gather("train", np.array([0]))


def test_open_files_are_bounded_over_many_shards(
    objects: ObjectStore,
    stored: DatasetManifest,
    cache: ShardCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brokers.shards.reader._MAX_MAPS", 3)
    reader = ShardReader(stored, objects=objects, cache=cache)
    before = len(list(Path("/proc/self/fd").iterdir()))

    reader.gather("train", np.arange(NUM_ROWS))
    _, labels = reader.gather("train", np.arange(NUM_ROWS))

    assert labels.tolist() == list(range(NUM_ROWS))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_gathering_rows_allocates_the_rows_alone(objects: ObjectStore, cache: ShardCache) -> None:
    data = np.zeros((20_000, 1000), np.uint8)
    manifest = Datasets(objects).create(
        f"set-{uuid4().hex[:12]}",
        train_data=data,
        train_labels=np.zeros(20_000),
        test_data=data[:1],
        test_labels=np.zeros(1),
    )
    reader = ShardReader(manifest, objects=objects, cache=cache)
    rows = np.random.default_rng(3).integers(0, 20_000, 64)
    reader.gather("train", rows)  # downloads

    tracemalloc.start()
    reader.gather("train", rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * 64 * 1008 + 50_000


def test_manifest_of_other_rows_is_found_out(
    objects: ObjectStore, stored: DatasetManifest, cache: ShardCache
) -> None:
    wrong = replace(stored, train=replace(stored.train, data_shape=(3, 2)))

    with pytest.raises(Corrupted, match="as in its manifest"):
        ShardReader(wrong, objects=objects, cache=cache).gather("train", np.array([0]))
