"""I8: the same job ends with the same weights, whatever the number of workers and the faults."""

import time
from collections.abc import Iterator

import pytest

from brokers.rounds.store import RoundStore
from brokers.settings import Settings
from brokers.state.connections import state_client
from kubeml.client.job import Job
from tests.cluster import Cluster, on_database
from tests.eventually import eventually
from tests.integration.conftest import put_function, put_points, wait_for_round


@pytest.fixture(scope="module")
def cluster(s3_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A pool of its own bucket and servers' keys, that begins with one worker."""
    home = tmp_path_factory.mktemp("home")
    settings = on_database(s3_settings, 1).with_changes(
        home=home, cache_dir=home / "cache", lease_s=2.0, s3_bucket="same-bits"
    )
    pool = Cluster(settings)
    try:
        pool.client.backends.objects.ensure_bucket()
        pool.start(workers=1)
        put_points(pool.client, rows=1300)
        for name in ("tiny", "slow"):
            put_function(pool.client, name, tmp_path_factory.mktemp("code"))
        yield pool
    finally:
        pool.close()


def train(cluster: Cluster, function: str = "tiny", **changes: object) -> str:
    job = cluster.client.train(
        function, "points", epochs=2, batch_size=10, lr=0.05, parallelism=4, static=True, k=8,
        optimizer_state="carry", **changes,
    )  # fmt: skip
    return job.wait(120).weights_sha256


def submit_slow(cluster: Cluster, **changes: object) -> Job:
    return cluster.client.train(
        "slow", "points", epochs=2, batch_size=10, lr=0.05, parallelism=4, static=True, k=8,
        optimizer_state="carry", **changes,
    )  # fmt: skip


def num_trained_again(cluster: Cluster, job: Job) -> int:
    copies = RoundStore(state_client(cluster.settings), job.id).head().copies
    return sum(row.retries for row in job.history()) + int(copies)


@pytest.mark.timeout(300)
def test_same_weights_on_one_two_and_three_workers_and_under_faults(cluster: Cluster) -> None:
    digests = {"one worker": train(cluster)}
    cluster.start_worker("worker-2")
    digests["two workers"] = train(cluster)
    cluster.start_worker("worker-3")
    digests["three workers"] = train(cluster)
    # `slow` sleeps in every batch, and is otherwise the same function.
    digests["slow"] = train(cluster, "slow")

    job = submit_slow(cluster)
    wait_for_round(job, epoch=1, round_number=2)
    cluster.kill("worker-1")
    digests["one killed in mid-epoch"] = job.wait(120).weights_sha256
    # The fault did fire: somebody had to train the dead worker's slot, again or as a copy.
    trained_again = num_trained_again(cluster, job)

    job = submit_slow(cluster)
    wait_for_round(job, epoch=1, round_number=2)
    started = time.monotonic()
    status = cluster.terminate("worker-2")
    drained_s = time.monotonic() - started
    digests["one told to go"] = job.wait(120).weights_sha256

    job = submit_slow(cluster)
    wait_for_round(job, epoch=2, round_number=1)
    state_client(cluster.settings).flushdb()
    digests["Redis lost"] = job.wait(120).weights_sha256

    assert len(set(digests.values())) == 1, digests
    assert trained_again >= 1
    assert (status, drained_s < 10) == (0, True), drained_s
    assert any(event.kind == "rebuilt" for event in job.events())
    assert [row.epoch for row in job.history()] == [1, 2]
    eventually(lambda: not job.status().num_workers, within_s=10, what="no participant left behind")


@pytest.mark.full
@pytest.mark.timeout(300)
def test_same_weights_with_overlap_on_one_and_two_workers_and_under_faults(
    cluster: Cluster,
) -> None:
    for name in list(cluster.processes):
        if name.startswith("worker"):
            cluster.kill(name)
    cluster.start_worker("worker-4")
    digests = {"one worker": train(cluster, overlap=True)}
    cluster.start_worker("worker-5")
    digests["two workers"] = train(cluster, overlap=True)
    # Two of its slots have a worker each, which trains them ahead.
    digests["slow"] = train(cluster, "slow", overlap=True)
    plain = train(cluster)

    job = submit_slow(cluster, overlap=True)
    wait_for_round(job, epoch=1, round_number=2)
    cluster.kill("worker-4")
    digests["one killed in mid-epoch"] = job.wait(120).weights_sha256
    trained_again = num_trained_again(cluster, job)

    cluster.start_worker("worker-6")
    job = submit_slow(cluster, overlap=True)
    wait_for_round(job, epoch=1, round_number=2)
    status = cluster.terminate("worker-5")
    digests["one told to go"] = job.wait(120).weights_sha256

    job = submit_slow(cluster, overlap=True)
    wait_for_round(job, epoch=2, round_number=2)
    state_client(cluster.settings).flushdb()
    digests["Redis lost"] = job.wait(120).weights_sha256

    assert len(set(digests.values())) == 1, digests
    assert plain not in digests.values()
    assert trained_again >= 1
    assert status == 0
    assert any(event.kind == "rebuilt" for event in job.events())
