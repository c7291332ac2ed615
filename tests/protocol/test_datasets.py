import contextlib
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from brokers.objects.store import ObjectStore
from brokers.settings import Secret, Settings
from brokers.shards.cache import ShardCache
from brokers.shards.reader import ShardReader
from kubeml.catalog import upload
from kubeml.catalog.datasets import Datasets, DataWarning
from kubeml.errors import (
    BackendUnreachable,
    Conflict,
    DatasetNotFound,
    InvalidDataset,
    InvalidOption,
    NameTaken,
)

Array = NDArray[Any]

#: A client of its own: argv is settings, name and file; it uploads and tells its memory.
CLIENT = """
import json, resource, sys
from pathlib import Path
import numpy as np
from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from kubeml.catalog.datasets import Datasets

settings, name, path, stop_at = sys.argv[1:]
objects = ObjectStore(Settings(home=Path(path).parent, **json.loads(settings)))
objects.ensure_bucket()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def on_progress(done, total):
    if done > int(stop_at):
        print(done, flush=True)
        sys.stdin.readline()  # to be killed meanwhile

labels = np.zeros(len(np.load(path, mmap_mode="r")))
Datasets(objects).create(
    name, train_data=path, train_labels=labels, test_data=np.zeros((1, 1000), np.uint8),
    test_labels=np.zeros(1), on_progress=on_progress,
)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def make_arrays(**changes: Any) -> dict[str, Any]:
    return {
        "train_data": np.arange(60, dtype=np.float32).reshape(20, 3),
        "train_labels": np.arange(20),
        "test_data": np.arange(12, dtype=np.float32).reshape(4, 3),
        "test_labels": np.arange(4),
        **changes,
    }


@pytest.fixture
def name() -> str:
    return f"set-{uuid4().hex[:12]}"


@pytest.fixture
def datasets(objects: ObjectStore) -> Datasets:
    return Datasets(objects)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 64 bytes of rows, so that small arrays make many."""
    monkeypatch.setattr(upload, "SHARD_BYTES", 64)


def keys(objects: ObjectStore, name: str) -> list[str]:
    return [info.key for info in objects.list(f"datasets/{name}/")]


def run_client(settings: Settings, name: str, path: Path, *, stop_at: int) -> subprocess.Popen[str]:
    fields = ("s3_endpoint_url", "s3_bucket", "s3_access_key", "s3_secret_key")
    wire = json.dumps({field: getattr(settings, field) for field in fields})
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, wire, name, str(path), str(stop_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.usefixtures("small_shards")
def test_created_dataset_holds_the_rows_of_the_arrays(
    datasets: Datasets, name: str, tmp_path: Path
) -> None:
    arrays = make_arrays()

    manifest = datasets.create(name, **arrays)

    reader = ShardReader(manifest, objects=datasets.objects, cache=ShardCache(tmp_path, 10**6))
    for split, num_rows in (("train", 20), ("test", 4)):
        data, labels = reader.gather(split, np.arange(num_rows))  # type: ignore[arg-type]
        np.testing.assert_array_equal(data, arrays[f"{split}_data"], strict=True)
        np.testing.assert_array_equal(labels, arrays[f"{split}_labels"], strict=True)
    assert len(manifest.train.shards) > 3


def test_dataset_is_created_from_files(datasets: Datasets, name: str, tmp_path: Path) -> None:
    arrays = make_arrays()
    np.save(tmp_path / "train.npy", arrays["train_data"])
    np.savez(tmp_path / "all.npz", y=arrays["train_labels"], tx=arrays["test_data"])
    (tmp_path / "ty.pkl").write_bytes(pickle.dumps(arrays["test_labels"]))

    manifest = datasets.create(
        name,
        train_data=tmp_path / "train.npy",
        train_labels=f"{tmp_path}/all.npz:y",
        test_data=f"{tmp_path}/all.npz:tx",
        test_labels=str(tmp_path / "ty.pkl"),
    )

    assert (manifest.train.num_rows, manifest.test.num_rows) == (20, 4)
    assert (manifest.train.data_dtype, manifest.train.data_shape) == ("float32", (3,))
    assert (manifest.train.labels_dtype, manifest.train.labels_shape) == ("int64", ())


def test_labels_of_one_column_are_stored_as_scalars(datasets: Datasets, name: str) -> None:
    manifest = datasets.create(name, **make_arrays(train_labels=np.arange(20).reshape(20, 1)))

    assert manifest.train.labels_shape == manifest.test.labels_shape == ()


def test_dataset_is_found_by_name_and_by_version(datasets: Datasets, name: str) -> None:
    manifest = datasets.create(name, **make_arrays())

    assert datasets.show(name) == manifest
    assert datasets.at(name, manifest.version) == manifest
    assert manifest in datasets.list()


def test_list_is_in_order_of_names_and_without_broken_ones(datasets: Datasets, name: str) -> None:
    for suffix in ("b", "a", "c"):
        datasets.create(f"{name}-{suffix}", **make_arrays())
    datasets.objects.put_json(f"datasets/{name}-b/manifest.json", {"name": "b"})

    names = [found.name for found in datasets.list() if found.name.startswith(name)]

    assert names == [f"{name}-a", f"{name}-c"]


@pytest.mark.parametrize("unknown", ["nosuch", "../jobs", "", "a/b"])
def test_unknown_name_is_not_found(datasets: Datasets, unknown: str) -> None:
    for look_up in (datasets.show, datasets.delete, lambda n: datasets.at(n, "v1")):
        with pytest.raises(DatasetNotFound) as refusal:
            look_up(unknown)
        assert refusal.value.exit_code == 3


def test_deleted_dataset_leaves_no_object_and_frees_its_name(datasets: Datasets, name: str) -> None:
    first = datasets.create(name, **make_arrays())

    datasets.delete(name)

    assert keys(datasets.objects, name) == []
    with pytest.raises(DatasetNotFound):
        datasets.at(name, first.version)
    assert datasets.create(name, **make_arrays()).version != first.version


def test_deletion_spares_datasets_whose_name_begins_alike(datasets: Datasets, name: str) -> None:
    datasets.create(name, **make_arrays())
    kept = datasets.create(f"{name}-2", **make_arrays())

    datasets.delete(name)

    assert datasets.show(f"{name}-2") == kept


def test_taken_name_is_refused_and_the_dataset_kept(datasets: Datasets, name: str) -> None:
    first = datasets.create(name, **make_arrays())
    before = keys(datasets.objects, name)

    with pytest.raises(NameTaken) as refusal:
        datasets.create(name, **make_arrays())

    assert refusal.value.exit_code == 4
    assert f"kubeml dataset delete {name}" in refusal.value.hint
    assert keys(datasets.objects, name) == before
    assert datasets.show(name) == first


OBJECTS = np.empty(20, dtype=object)
UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "fewer-labels": ({"train_labels": np.arange(19)}, "train labels: has 19 rows, expected 20"),
    "more-test-labels": ({"test_labels": np.arange(5)}, "test labels: has 5 rows, expected 4"),
    "objects": ({"train_data": OBJECTS}, "train data: holds Python objects"),
    "empty": ({"test_data": np.zeros((0, 3))}, "test data: is empty"),
    "other-shape": (
        {"test_data": np.zeros((4, 2), np.float32)},
        "test data: has rows of float32 (2,), expected float32 (3,)",
    ),
    "other-dtype": (
        {"test_data": np.zeros((4, 3))},
        "test data: has rows of float64 (3,), expected float32 (3,)",
    ),
    "other-labels": (
        {"test_labels": np.zeros(4)},
        "test labels: has rows of one float64, expected one int64",
    ),
    "no-file": ({"train_data": "none.npy"}, "train data none.npy: no such file"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_arrays_are_refused_before_anything_is_written(
    datasets: Datasets, name: str, case: str
) -> None:
    changes, fault = UNUSABLE[case]

    with pytest.raises(InvalidDataset) as refusal:
        datasets.create(name, **make_arrays(**changes))

    assert str(refusal.value).startswith(fault)
    assert refusal.value.exit_code == 6
    assert refusal.value.hint or case == "empty"
    assert keys(datasets.objects, name) == []


@pytest.mark.parametrize("bad", ["", "-x", "a/b", "..", "a" * 64, "ü"])
def test_unsafe_name_is_refused(datasets: Datasets, bad: str) -> None:
    with pytest.raises(InvalidOption, match="--name"):
        datasets.create(bad, **make_arrays())


def test_rows_with_nan_or_infinity_are_warned_of_and_stored(datasets: Datasets, name: str) -> None:
    data = make_arrays()["train_data"]
    data[3, 1], data[3, 2], data[7, 0] = np.nan, np.inf, -np.inf

    with pytest.warns(DataWarning, match="train data: 2 of 20 rows hold NaN") as caught:
        manifest = datasets.create(name, **make_arrays(train_data=data))

    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert datasets.show(name) == manifest


def test_warning_made_an_error_publishes_nothing(datasets: Datasets, name: str) -> None:
    data = np.full((20, 3), np.nan, np.float32)

    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        with pytest.raises(DataWarning):
            datasets.create(name, **make_arrays(train_data=data))

    assert keys(datasets.objects, name) == []


@pytest.mark.usefixtures("small_shards")
def test_progress_goes_from_nothing_to_all_bytes(datasets: Datasets, name: str) -> None:
    seen: list[tuple[int, int]] = []
    arrays = make_arrays()
    total = sum(array.nbytes for array in arrays.values())

    manifest = datasets.create(
        name, **arrays, on_progress=lambda done, whole: seen.append((done, whole))
    )

    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    assert len(seen) == 1 + len(manifest.train.shards) + len(manifest.test.shards)


@pytest.mark.usefixtures("small_shards")
def test_interrupted_upload_is_taken_away(datasets: Datasets, name: str) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.create(name, **make_arrays(), on_progress=interrupt)

    assert keys(datasets.objects, name) == []
    assert [t.name for t in threading.enumerate() if t.name.startswith("upload")] == []


@pytest.mark.parametrize("cleaner", ["create", "delete"])
def test_killed_upload_leaves_nothing_visible_and_is_cleared_by_the_next(
    datasets: Datasets, s3_settings: Settings, name: str, tmp_path: Path, cleaner: str
) -> None:
    path = tmp_path / "train.npy"
    np.save(path, np.zeros((40_000, 1000), np.uint8))
    client = run_client(s3_settings, name, path, stop_at=1)
    with client:
        assert client.stdout is not None
        assert int(client.stdout.readline()) > 0
        client.kill()
    leftovers = keys(datasets.objects, name)
    assert leftovers

    with pytest.raises(DatasetNotFound):
        datasets.show(name)
    assert name not in [found.name for found in datasets.list()]
    if cleaner == "create":
        manifest = datasets.create(name, **make_arrays())
        assert datasets.show(name) == manifest
        assert len(keys(datasets.objects, name)) == 4
    else:
        with contextlib.suppress(DatasetNotFound):
            datasets.delete(name)
        assert keys(datasets.objects, name) == []


def test_upload_needs_memory_for_a_few_shards_whatever_its_size(
    s3_settings: Settings, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (320_000, 1000)).flush()

    client = run_client(s3_settings, name, path, stop_at=10**12)
    answer, _ = client.communicate(timeout=100)

    grown_mb = int(answer) / 1024
    assert client.returncode == 0
    # 320 MB of data: 5 shards of 16 MiB at a time and 4 packed copies of them make 144 MiB.
    assert grown_mb < 175


def test_one_of_two_concurrent_creators_wins_and_its_rows_are_whole(
    objects: ObjectStore, name: str, tmp_path: Path
) -> None:
    barrier = threading.Barrier(2)
    results: dict[int, Any] = {}

    def create(number: int) -> None:
        def meet(done: int, total: int) -> None:
            if done == total:
                barrier.wait(30)  # both have put every shard and published nothing

        arrays = make_arrays(train_labels=np.full(20, number))
        try:
            results[number] = Datasets(objects).create(name, **arrays, on_progress=meet)
        except NameTaken as err:
            results[number] = err

    threads = [threading.Thread(target=create, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = [n for n, result in results.items() if not isinstance(result, NameTaken)]
    manifest = Datasets(objects).show(name)
    reader = ShardReader(manifest, objects=objects, cache=ShardCache(tmp_path, 10**6))
    assert reader.gather("train", np.arange(20))[1].tolist() == [winner] * 20
    assert len(keys(objects, name)) == 4


def test_upload_whose_shards_were_deleted_meanwhile_is_not_published(
    datasets: Datasets, name: str
) -> None:
    def delete(done: int, total: int) -> None:
        if done == total:
            with contextlib.suppress(DatasetNotFound):
                datasets.delete(name)

    with pytest.raises(Conflict, match="was deleted while it was uploaded"):
        datasets.create(name, **make_arrays(), on_progress=delete)

    assert keys(datasets.objects, name) == []


def test_server_that_is_down_is_named_within_seconds(tmp_path: Path, name: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings(
            home=tmp_path,
            s3_endpoint_url=url,
            s3_access_key=Secret("any"),
            s3_secret_key=Secret("any"),
        )

        started = time.monotonic()
        with pytest.raises(BackendUnreachable, match=f"s3 at {url}"):
            Datasets(ObjectStore(settings)).create(name, **make_arrays())

        assert time.monotonic() - started < 10
