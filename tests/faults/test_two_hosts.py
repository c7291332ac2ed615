"""Two hosts train together; one is cut off from the network, and comes back."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from brokers.pool.presence import alive_nodes
from kubeml.client.job import Job
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.faults.guarded import guarded_servers
from tests.faults.paced import PacedTraining
from tests.faults.second_host import SecondHost, why_no_second_host

#: Within which rounds must be merged without the other host: leases last 2 s here.
BOUND_S = 8.0

#: From the moment when the cable is plugged in until the host's work counts again.
RETURN_S = 10.0


@pytest.fixture(scope="module")
def second_host() -> Iterator[SecondHost]:
    reason = why_no_second_host()
    if reason:
        pytest.skip(f"no network namespace can be made: {reason}")
    host = SecondHost()
    try:
        yield host
    finally:
        host.close()


@pytest.fixture(scope="module")
def cluster(second_host: SecondHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """All of a pool on this host, and one worker on the other; each with its role's rights."""
    folder = tmp_path_factory.mktemp("hosts")
    with guarded_servers(folder, address=second_host.here) as guarded:
        pool = Cluster(guarded.settings("client").with_changes(lease_s=2.0))
        try:
            pool.start_ps(env=guarded.env("ps"))
            pool.start_control(env=guarded.env("control"))
            pool.start_worker("near", env=guarded.env("worker"), wait=False)
            pool.start_worker(
                "far",
                # What it reads of the dataset comes through the cable, too.
                env=guarded.env("worker") | {"KUBEML_CACHE_DIR": str(folder / "far")},
                inside=second_host.inside,
                wait=False,
            )
            for name in ("control", "near", "far"):
                pool.wait_for(name)
            yield pool
        finally:
            pool.close()


@pytest.fixture(scope="module")
def training(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> PacedTraining:
    return PacedTraining(cluster.client, tmp_path_factory.mktemp("paced"))


def test_host_that_is_cut_off_for_seconds_takes_part_again(
    cluster: Cluster, second_host: SecondHost, training: PacedTraining
) -> None:
    job = training.submit()
    training.wait_for_work_of("far", job, within_s=20)

    with cut_off_in_mid_slot(second_host, cluster):
        there = stand_still(training, job)
    training.wait_for_work_of("far", job, after=there, within_s=RETURN_S)

    audit = training.finish(job)
    assert len(audit.generations) == 1


@pytest.mark.full
def test_host_that_the_pool_has_given_up_takes_part_again(
    cluster: Cluster, second_host: SecondHost, training: PacedTraining
) -> None:
    # No copies: its slot comes back by its lease alone.
    job = training.submit(hedge=False)
    training.wait_for_work_of("far", job, within_s=20)

    with cut_off_in_mid_slot(second_host, cluster):
        there = stand_still(training, job)
        eventually(lambda: "far" not in workers(cluster), within_s=15, what="its loss")
    training.wait_for_work_of("far", job, after=there, within_s=RETURN_S)

    audit = training.finish(job)
    assert len(audit.generations) == 1
    lost = [
        attempt.worker for row in audit.epochs for attempt in row.failed if attempt.kind == "lost"
    ]
    assert lost == ["far"]
    eventually(lambda: "far" in workers(cluster), within_s=10, what="word of the second host")


@contextmanager
def cut_off_in_mid_slot(host: SecondHost, cluster: Cluster) -> Iterator[None]:
    """Cut the second host off while its worker trains a slot that it cannot hand in any more."""

    def is_cut_off() -> bool:
        if not has_slot(cluster, "far"):
            return False
        host.pull_cable()
        if has_slot(cluster, "far"):
            return True
        host.plug_in()  # it had just handed in: try again
        return False

    try:
        eventually(is_cut_off, within_s=20, what="slot of the second host")
        yield
    finally:
        host.plug_in()


def stand_still(training: PacedTraining, job: Job) -> tuple[int, int]:
    """Wait until the job has gone on without the second host; returns where it is then."""
    # What it sent last may count still, in the first of these rounds.
    training.wait_until_it_goes_on(job, rounds=3, within_s=BOUND_S)
    last = training.last_work_of("far", job)
    training.wait_until_it_goes_on(job, rounds=3, within_s=BOUND_S)
    assert training.last_work_of("far", job) in {last, (0, 0)}
    status = job.status()
    return status.epoch, status.round - 1


def has_slot(cluster: Cluster, worker: str) -> bool:
    """Whether a worker trains a slot of a round at this moment."""
    there = {w.name: w for w in cluster.client.pool().workers}
    return worker in there and there[worker].stage == "train"


def workers(cluster: Cluster) -> set[str]:
    """The workers of which the pool has heard lately."""
    return {node.name for node in alive_nodes(cluster.client.backends.redis, role="worker")}
