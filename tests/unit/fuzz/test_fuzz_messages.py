"""Whatever comes over a wire is read, or refused by name: no other error, and no hang."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.errors import KubemlError
from brokers.messages.hint import Hint
from brokers.rounds.contribution import Contribution
from brokers.shards.manifest import DatasetManifest
from brokers.tensors.reference import TensorRef
from kubeml.catalog.functions import FunctionInfo
from kubeml.errors import InvalidOption, MalformedMessage
from kubeml.jobs.checkpoint import Checkpoint
from kubeml.jobs.results import EpochRow, JobEnd
from kubeml.jobs.spec import JobSpec
from kubeml.weights.layout import Layout, TensorSpec, pack_initial, unpack_initial
from tests.unit.brokers.shards.test_manifest import make_manifest

QUICK = settings(max_examples=150, deadline=None, derandomize=True)

LAYOUT = Layout((TensorSpec(name="w", shape=(2, 3), dtype="float32", kind="param", aliases=()),))
SPEC = JobSpec(
    id="j", function="f", function_sha256="0" * 64, entry="f.py", dataset="d", dataset_version="v",
    epochs=2, batch_size=4, lr=0.1,
)  # fmt: skip
BLOB = {"key": "k", "sha256": "0" * 64, "num_bytes": 3}

#: What is read, how, and a valid example to spoil.
DOORS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "hint": (Hint.from_wire, {"job_id": "j", "ticket": "t"}),
    "tensor reference": (
        lambda wire: TensorRef.from_json(json.dumps(wire)),
        {"key": "kml:{j}:w:a", "num_chunks": 1, "num_bytes": 24, "crc": 7},
    ),
    "contribution": (
        lambda wire: Contribution.from_json(json.dumps(wire)),
        json.loads(
            Contribution(
                cid="c", token="t", slot=0, worker="w", attempt=1, num_samples=8,
                timings={"push": 0.1},
            ).to_json()
        ),
    ),
    "job spec": (JobSpec.from_wire, SPEC.to_wire()),
    "history row": (
        EpochRow.from_wire,
        {
            "epoch": 1, "parallelism": 2, "num_workers": 1, "rounds": 1, "steps": 1, "samples": 4,
            "train_loss": 0.5, "val_loss": None, "accuracy": None, "duration_s": 1.0,
            "validation_s": 0.0, "retries": 0, "decision": "", "weights_sha256": "",
            "ended_at": 1.0,
        },
    ),
    "job end": (
        JobEnd.from_wire,
        {
            "state": "DONE", "reason": "", "epoch": 1, "checkpoint": "", "weights_sha256": "",
            "accuracy": 1.0, "train_loss": None, "val_loss": None, "elapsed_s": 1.0,
            "ended_at": 1.0,
        },
    ),
    "function": (
        FunctionInfo.from_wire,
        {"name": "f", "sha256": "0" * 64, "size": 3, "created_at": 1.0, "entry": "f.py"},
    ),
    "layout": (Layout.from_wire, LAYOUT.to_wire()),
    "manifest": (DatasetManifest.from_wire, make_manifest().to_wire()),
    "checkpoint": (
        Checkpoint.from_wire,
        {
            "job_id": "j", "epoch": 1, "version": 2, "layout": LAYOUT.to_wire(), "weights": BLOB,
            "frozen": None, "outer_state": None, "optimizer": {"0": BLOB},
        },
    ),
}  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**30, -1, "../../etc/passwd", "\ud800", "a" * 5000, "1", ""]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value, the whole included."""
    found = [path]
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(part, (*path, key))
    return found


def spoiled(value: Any, path: tuple[Any, ...], new: Any, how: str) -> Any:
    """The value with another one at a path, or without it, or with something added there."""
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if how == "drop":
        del at[path[-1]]
    elif how == "add" and isinstance(at, dict):
        at["surplus"] = new
    else:
        at[path[-1]] = new
    return copy


@pytest.mark.parametrize("door", DOORS)
def test_valid_examples_are_read(door: str) -> None:
    read, valid = DOORS[door]
    read(valid)


@pytest.mark.parametrize("door", DOORS)
@QUICK
@given(data=st.data())
def test_spoiled_messages_are_read_or_refused(door: str, data: st.DataObject) -> None:
    read, valid = DOORS[door]
    path = data.draw(st.sampled_from(places(valid)))
    wire = spoiled(valid, path, data.draw(JSON), data.draw(st.sampled_from(["set", "drop", "add"])))
    with contextlib.suppress(KubemlError):
        read(wire)


@QUICK
@given(changes=st.dictionaries(st.sampled_from(sorted(SPEC.to_wire())), JSON, max_size=3))
def test_any_job_spec_is_accepted_or_refused_by_name(changes: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidOption, MalformedMessage):
        JobSpec.from_wire(SPEC.to_wire() | changes).check()


@pytest.mark.parametrize("field", ["epochs", "parallelism", "lr", "seed"])
@pytest.mark.parametrize("value", ["3", None, True, [3], {"a": 1}])
def test_a_spec_of_wrong_types_is_refused(field: str, value: object) -> None:
    with pytest.raises(KubemlError):
        JobSpec.from_wire(SPEC.to_wire() | {field: value})


@pytest.mark.parametrize("text", ["[" * 90_000, '{"a":' * 20_000, "x" * 200_000])
def test_deep_and_long_messages_are_refused(text: str) -> None:
    for read in (TensorRef.from_json, Contribution.from_json):
        with pytest.raises(KubemlError):
            read(text)


@QUICK
@given(data=st.data())
def test_a_spoiled_initial_blob_is_refused(data: st.DataObject) -> None:
    blob = pack_initial(LAYOUT, b"\0" * 24, b"")
    at = data.draw(st.integers(0, len(blob) - 1))
    spoilt = bytearray(blob)
    spoilt[at] ^= data.draw(st.integers(1, 255))
    spoilt = (
        spoilt[: data.draw(st.integers(0, len(spoilt)))] if data.draw(st.booleans()) else spoilt
    )
    try:
        layout, weights, _ = unpack_initial(spoilt)
    except KubemlError:
        return
    assert len(weights) == layout.weights_bytes
