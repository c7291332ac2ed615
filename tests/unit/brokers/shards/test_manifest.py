import json
from typing import Any

import pytest

from brokers.errors import MalformedMessage
from brokers.shards.manifest import DatasetManifest, ShardInfo, SplitInfo, shard_key


def make_split(split: Any = "train", *, shard_rows: tuple[int, ...] = (3, 2)) -> SplitInfo:
    return SplitInfo(
        num_rows=sum(shard_rows),
        data_dtype="uint8",
        data_shape=(4, 2),
        labels_dtype="int64",
        labels_shape=(),
        shards=tuple(
            ShardInfo(
                key=shard_key("mnist", "v1", split, index),
                num_rows=rows,
                num_bytes=rows * 16 + 200,
                sha256=f"{index:064x}",
            )
            for index, rows in enumerate(shard_rows)
        ),
    )


def make_manifest() -> DatasetManifest:
    return DatasetManifest(
        name="mnist", version="v1", created_at=1.5, train=make_split(), test=make_split("test")
    )


def test_manifest_survives_the_wire() -> None:
    manifest = make_manifest()

    wire = json.loads(json.dumps(manifest.to_wire()))

    assert DatasetManifest.from_wire(wire) == manifest


def test_manifest_adds_up_its_parts() -> None:
    manifest = make_manifest()

    assert manifest.num_bytes == 2 * (5 * 16 + 2 * 200)
    assert manifest.train.shard_rows == (3, 2)
    assert manifest.train.first_rows == (0, 3)
    assert manifest.split("test") is manifest.test


FAULTS: dict[str, tuple[list[Any], Any]] = {
    "foreign-shard": (["train", "shards", 0, "key"], "jobs/1/spec.json"),
    "shard-of-another-version": (
        ["train", "shards", 0, "key"],
        "datasets/mnist/v2/train-00000.safetensors",
    ),
    "key-not-text": (["train", "shards", 0, "key"], 5),
    "no-hash": (["train", "shards", 0, "sha256"], "../../etc/passwd"),
    "rows-do-not-add-up": (["train", "num_rows"], 6),
    "no-rows": (["train", "shards", 0, "num_rows"], 0),
    "rows-as-text": (["train", "num_rows"], "5"),
    "rows-as-bool": (["test", "shards", 0, "num_rows"], True),
    "shard-too-small-for-its-rows": (["train", "shards", 0, "num_bytes"], 48),
    "huge-shard": (["train", "shards", 0, "num_bytes"], 2**40),
    "object-dtype": (["train", "data_dtype"], "object"),
    "list-dtype": (["train", "data_dtype"], ["uint8"]),
    "negative-axis": (["train", "data_shape"], [-4, 2]),
    "shape-as-number": (["train", "data_shape"], 4),
    "too-many-axes": (["train", "data_shape"], [1] * 17),
    "no-shards": (["test", "shards"], []),
    "shards-as-object": (["test", "shards"], {}),
    "shard-as-text": (["test", "shards"], ["x"]),
    "unknown-shard-field": (["test", "shards", 0, "url"], "http://elsewhere"),
    "unknown-split-field": (["test", "extra"], 1),
    "unknown-field": (["extra"], 1),
    "split-as-list": (["test"], []),
    "unsafe-name": (["name"], "../mnist"),
    "unsafe-version": (["version"], "v1/../.."),
    "no-time": (["created_at"], "yesterday"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_manifest_from_the_wire_is_refused_when_it_cannot_be_true(case: str) -> None:
    path, value = FAULTS[case]
    wire = json.loads(json.dumps(make_manifest().to_wire()))
    place = wire
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(MalformedMessage, match="malformed dataset manifest"):
        DatasetManifest.from_wire(wire)


@pytest.mark.parametrize("field", ["name", "version", "created_at", "train", "test"])
def test_manifest_from_the_wire_is_refused_when_a_field_is_missing(field: str) -> None:
    wire = make_manifest().to_wire()
    del wire[field]

    with pytest.raises(MalformedMessage, match=field):
        DatasetManifest.from_wire(wire)
