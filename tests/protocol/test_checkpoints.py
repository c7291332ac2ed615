"""Checkpoints in a real bucket: what nobody refers to goes away, and nothing else."""

import pytest

from brokers.objects.store import ObjectStore
from kubeml.jobs.checkpoint import Checkpoint, Checkpoints
from kubeml.weights.layout import Layout, TensorSpec

LAYOUT = Layout((TensorSpec(name="w", shape=(2,), dtype="float32", kind="param", aliases=()),))


@pytest.fixture
def checkpoints(objects: ObjectStore) -> Checkpoints:
    return Checkpoints(objects)


def make(checkpoints: Checkpoints, job_id: str, epoch: int) -> Checkpoint:
    weights = checkpoints.put_weights(job_id, LAYOUT, bytes([epoch]) * 8)
    return Checkpoint(
        job_id=job_id, epoch=epoch, version=epoch + 1, layout=LAYOUT, weights=weights, frozen=None,
        outer_state=checkpoints.put_blob(job_id, "outer", b"o"), optimizer={},
    )  # fmt: skip


def test_objects_without_a_manifest_are_dropped_and_others_stay(
    checkpoints: Checkpoints, objects: ObjectStore, job_id: str
) -> None:
    kept = checkpoints.publish(make(checkpoints, job_id, 1), 1)
    orphan = make(checkpoints, job_id, 2)

    checkpoints.drop_unreferenced(job_id)

    assert all(objects.exists(key) for key in kept.keys)
    assert not any(objects.exists(key) for key in orphan.keys)
    assert checkpoints.latest(job_id) == kept


def test_a_manifest_published_after_its_objects_went_does_not_stay(
    checkpoints: Checkpoints, job_id: str
) -> None:
    late = make(checkpoints, job_id, 1)
    checkpoints.drop_unreferenced(job_id)

    checkpoints.publish(late, 1)

    assert checkpoints.at(job_id, 1) is None


def test_the_first_manifest_of_an_epoch_wins(checkpoints: Checkpoints, job_id: str) -> None:
    first = checkpoints.publish(make(checkpoints, job_id, 1), 1)

    assert checkpoints.publish(make(checkpoints, job_id, 1), 1) == first
