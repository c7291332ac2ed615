"""An S3 server that does what it is asked to, and whose answer never comes."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from brokers.shards.manifest import pointer_key, version_prefix
from kubeml.catalog.datasets import Datasets
from kubeml.catalog.functions import Functions
from kubeml.errors import BackendUnreachable, NameTaken, ObjectExists, OutcomeUnknown
from kubeml.jobs.records import JobRecords
from tests.faults.s3_proxy import S3Proxy
from tests.integration.conftest import FUNCTIONS
from tests.protocol.test_datasets import keys, make_arrays

#: boto3 sends a request so often.
ATTEMPTS = 3


@pytest.fixture
def name() -> str:
    return f"set-{uuid4().hex[:12]}"


@pytest.fixture
def link(s3_settings: Settings) -> Iterator[S3Proxy]:
    """What stands between the client and the server."""
    port = urlsplit(s3_settings.s3_endpoint_url).port
    assert port is not None
    proxy = S3Proxy(port)
    yield proxy
    proxy.close()


@pytest.fixture
def linked(s3_settings: Settings, link: S3Proxy) -> ObjectStore:
    """The bucket through the proxy; ``objects`` goes past it."""
    return ObjectStore(s3_settings.with_changes(s3_endpoint_url=f"http://127.0.0.1:{link.port}"))


def request(method: str, key: str) -> Callable[[str, str], bool]:
    return lambda verb, path: verb == method and urlsplit(path).path.endswith(f"/{key}")


@pytest.mark.parametrize("times", [1, ATTEMPTS])
def test_a_dataset_whose_manifest_was_written_unheard_is_created(
    objects: ObjectStore, linked: ObjectStore, link: S3Proxy, name: str, times: int
) -> None:
    fault = link.add(request("PUT", pointer_key(name)), "lost", times=times)

    manifest = Datasets(linked).create(name, **make_arrays())

    assert fault.hit == times
    assert Datasets(objects).show(name) == manifest
    shards = {shard.key for split in (manifest.train, manifest.test) for shard in split.shards}
    assert shards < set(keys(objects, name))


@pytest.mark.parametrize("is_told", [False, True], ids=["lost", "heard"])
def test_nothing_of_a_dataset_is_deleted_that_may_be_published(
    objects: ObjectStore, linked: ObjectStore, link: S3Proxy, name: str, *, is_told: bool
) -> None:
    key = pointer_key(name)
    if not is_told:
        link.add(request("PUT", key), "lost")
    link.add(request("GET", key), "error", times=ATTEMPTS)

    with pytest.raises(OutcomeUnknown, match=f"it is not known whether '{key}' was written") as err:
        Datasets(linked).create(name, **make_arrays())

    assert err.value.exit_code == 5
    manifest = Datasets(objects).show(name)
    shards = {shard.key for split in (manifest.train, manifest.test) for shard in split.shards}
    assert shards < set(keys(objects, name))


def test_a_dataset_whose_manifest_never_arrived_is_not_reported_as_there(
    objects: ObjectStore, linked: ObjectStore, link: S3Proxy, name: str
) -> None:
    link.add(request("PUT", pointer_key(name)), "error", times=ATTEMPTS)

    with pytest.raises(OutcomeUnknown):
        Datasets(linked).create(name, **make_arrays())

    assert pointer_key(name) not in keys(objects, name)
    # What is left is cleared by whoever creates it again.
    manifest = Datasets(objects).create(name, **make_arrays())
    prefix = version_prefix(name, manifest.version)
    assert all(key.startswith((prefix, pointer_key(name))) for key in keys(objects, name))


def test_another_dataset_of_the_name_is_no_success_of_ours(objects: ObjectStore, name: str) -> None:
    theirs = Datasets(objects).create(name, **make_arrays())
    Datasets(objects).delete(name)

    def on_progress(done: int, total: int) -> None:
        if done == total:
            objects.put_json(pointer_key(name), theirs.to_wire())

    with pytest.raises(NameTaken):
        Datasets(objects).create(name, **make_arrays(), on_progress=on_progress)

    assert Datasets(objects).show(name) == theirs
    assert keys(objects, name) == [pointer_key(name)]


def test_a_function_that_was_written_unheard_is_created(
    objects: ObjectStore, linked: ObjectStore, link: S3Proxy, name: str
) -> None:
    fault = link.add(request("PUT", f"functions/{name}.json"), "lost")

    info = Functions(linked).create(name, FUNCTIONS / "tiny.py", check=False)

    assert fault.hit == 1
    assert Functions(objects).show(name) == info


def test_a_claim_in_words_that_others_may_use_is_never_taken_for_our_own(
    objects: ObjectStore, linked: ObjectStore, link: S3Proxy, job_id: str
) -> None:
    objects.create(f"claims/{job_id}", b"mine")
    with pytest.raises(ObjectExists):
        objects.create(f"claims/{job_id}", b"mine")
    objects.create(f"claims/{job_id}", b"mine", is_unique=True)
    with pytest.raises(ObjectExists):
        objects.create(f"claims/{job_id}", b"another's", is_unique=True)

    link.add(request("PUT", f"jobs/{job_id}/gen-000001.json"), "lost")

    assert JobRecords(linked).next_generation(job_id, why="lost") is None
    assert JobRecords(linked).next_generation(job_id, why="lost") == 2


def test_a_put_that_may_be_repeated_needs_no_look(
    objects: ObjectStore, linked: ObjectStore, link: S3Proxy, job_id: str
) -> None:
    link.add(request("PUT", f"claims/{job_id}"), "lost", times=ATTEMPTS)

    with pytest.raises(BackendUnreachable) as err:
        linked.create(f"claims/{job_id}", b"mine")

    assert not isinstance(err.value, OutcomeUnknown)
    assert objects.get(f"claims/{job_id}") == b"mine"
