"""A function that leaks memory: it is given back, and no job is the worse."""

from collections.abc import Iterator

import psutil
import pytest

from brokers.settings import Settings
from kubeml.jobs.spec import State
from tests.cluster import Cluster, on_database
from tests.eventually import eventually
from tests.faults.pool import longest_pause
from tests.integration.conftest import put_function, put_points

LIMIT = 500 * 2**20
LEASE_S = 25.0
ENDED = {State.DONE, State.FAILED}
OPTIONS = {"batch_size": 10, "lr": 0.05, "static": True, "k": 10, "parallelism": 2}


@pytest.fixture(scope="module")
def cluster(s3_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A pool of one worker, whose process may hold 500 MiB."""
    home = tmp_path_factory.mktemp("home")
    settings = on_database(s3_settings, 8).with_changes(
        home=home,
        cache_dir=home / "cache",
        s3_bucket="leaks",
        memory_bytes=LIMIT,
        lease_s=LEASE_S,
    )
    pool = Cluster(settings)
    try:
        pool.client.backends.objects.ensure_bucket()
        pool.start(workers=1)
        put_points(pool.client)
        for name in ("tiny", "leaks"):
            put_function(pool.client, name, tmp_path_factory.mktemp("code"))
        yield pool
    finally:
        pool.close()


def held(cluster: Cluster) -> int:
    """Bytes that the worker and its child hold, each of them by itself, at most."""
    worker = psutil.Process(cluster.processes["worker-1"].pid)
    return max(p.memory_info().rss for p in [worker, *worker.children()])


def test_function_that_leaks_hurts_no_other(cluster: Cluster) -> None:
    client = cluster.client
    alone = client.train("tiny", "points", epochs=2, **OPTIONS).wait(60)
    most = []

    # 240 batches: 960 MiB.
    leaking = client.train("leaks", "points", epochs=2, max_workers=1, **OPTIONS)
    other = client.train("tiny", "points", epochs=2, **OPTIONS)

    def both_are_done() -> bool:
        most.append(held(cluster))
        return not any(job.status().state not in ENDED for job in (leaking, other))

    eventually(both_are_done, within_s=90, what="end of both jobs")
    assert other.wait(1).weights_sha256 == alone.weights_sha256
    assert leaking.wait(1).epoch == 2
    assert leaking.audit().is_exact
    assert other.audit().is_exact
    # What a round leaves behind, 40 MiB, may come on top.
    assert max(most) < LIMIT + 2**27, max(most) >> 20
    assert f"job {leaking.id}: this process holds" in cluster.log("worker-1")
    # It may have one worker: the next one's place was free before a lease had run out.
    assert longest_pause(leaking) < LEASE_S - 5


def test_process_that_begins_with_more_than_it_may_hold_gets_on_all_the_same(
    cluster: Cluster,
) -> None:
    # The least that can be asked for: every process is replaced after one slot's round.
    cluster.kill("worker-1")
    cluster.start_worker("small", env={"KUBEML_MEMORY_BYTES": "1"})

    job = cluster.client.train("tiny", "points", epochs=1, **(OPTIONS | {"k": -1}))

    assert job.wait(60).epoch == 1
    assert job.audit().is_exact
    assert "(KUBEML_MEMORY_BYTES)" in cluster.log("small")
