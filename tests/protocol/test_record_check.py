"""What ``kubeml doctor`` finds missing in a real bucket."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from kubeml.catalog.functions import bundle_key
from kubeml.client.client import Client
from kubeml.ops.record_check import record_faults
from tests.integration.conftest import FUNCTIONS
from tests.jobs import make_end, make_spec
from tests.protocol.test_checkpoints import make


@pytest.fixture
def client(s3_settings: Settings, job_id: str) -> Iterator[Client]:
    """A client of a bucket with a function, a dataset and a job under way that uses both."""
    with Client(s3_settings.with_changes(s3_bucket=job_id)) as client:
        client.backends.objects.ensure_bucket()
        info = client.functions.create("tiny", FUNCTIONS / "tiny.py", check=False)
        rows, labels = np.zeros((3, 8), np.float32), np.zeros(3, np.int64)
        manifest = client.datasets.create(
            "points", train_data=rows, train_labels=labels, test_data=rows, test_labels=labels
        )
        spec = replace(
            make_spec(job_id), function="tiny", function_sha256=info.sha256, dataset="points",
            dataset_version=manifest.version,
        )  # fmt: skip
        client.backends.records.create(spec)
        client.backends.checkpoints.publish(make(client.backends.checkpoints, job_id, 1), 1)
        yield client


def test_a_whole_bucket_has_no_faults(client: Client, job_id: str) -> None:
    assert list(record_faults(client.backends)) == []

    key = client.backends.checkpoints.key(job_id, 1)
    client.backends.records.set_end(job_id, 0, replace(make_end(job_id), checkpoint=key), [])

    assert list(record_faults(client.backends)) == []


def bundle(client: Client, job_id: str) -> str:
    return bundle_key(client.functions.show("tiny").sha256)


def shard(client: Client, job_id: str) -> str:
    return client.datasets.show("points").train.shards[0].key


def version(client: Client, job_id: str) -> str:
    return f"datasets/points/{client.datasets.show('points').version}/manifest.json"


def weights(client: Client, job_id: str) -> str:
    checkpoint = client.backends.checkpoints.latest(job_id)
    assert checkpoint is not None
    return checkpoint.weights.key


def marker(client: Client, job_id: str) -> str:
    return f"active/{job_id}"


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        (bundle, ["function tiny has no code", "job {} lacks the code of its function tiny"]),
        (shard, ["dataset points lacks 1 shards", "job {} lacks 1 shards of its dataset points"]),
        (version, ["job {} lacks its dataset points"]),
        (weights, ["job {}: its last checkpoint lacks checkpoints/{}/objects/"]),
        (marker, ["job {} has not ended and is on no list"]),
    ],
)
def test_what_is_missing_is_told(client: Client, job_id: str, lost, told: list[str]) -> None:  # type: ignore[no-untyped-def]
    client.backends.objects.delete([lost(client, job_id)])

    faults = list(record_faults(client.backends))

    assert len(faults) == len(told)
    for fault, beginning in zip(faults, told, strict=True):
        assert fault.startswith(beginning.replace("{}", job_id))


def test_the_checkpoint_of_an_ended_job_is_missed(client: Client, job_id: str) -> None:
    key = client.backends.checkpoints.key(job_id, 1)
    client.backends.records.set_end(job_id, 0, replace(make_end(job_id), checkpoint=key), [])
    assert list(record_faults(client.backends)) == []

    client.backends.objects.delete([key])

    assert list(record_faults(client.backends)) == [
        f"job {job_id} has ended, and its {key} is gone"
    ]


def test_a_job_on_no_list_is_put_back_by_whoever_lists_the_histories(
    client: Client, job_id: str
) -> None:
    client.backends.objects.delete([marker(client, job_id)])

    assert [status.id for status in client.histories()] == [job_id]

    assert client.backends.records.active() == [job_id]


def test_a_job_that_was_deleted_meanwhile_is_not_put_back(
    client: Client, objects: ObjectStore
) -> None:
    client.backends.records.put_back("gone")

    assert "gone" not in client.backends.records.active()
