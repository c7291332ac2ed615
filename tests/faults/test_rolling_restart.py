"""Every part of a pool restarted or replaced in turn, in the middle of a training."""

import itertools
import time
from collections.abc import Callable, Sequence

import pytest

from kubeml.analysis.audit import JobAudit
from kubeml.client.job import Job
from tests.eventually import eventually
from tests.faults.paced import PacedTraining
from tests.faults.pool import FaultPool, failed_attempts, longest_pause
from tests.faults.servers import S3Server, ValkeyServer

#: Within which a job must go on after any part was restarted.
BOUND_S = 15.0

#: Nobody is missed while others are replaced: about the time that a busy machine takes for a round.
PAUSE_S = 5.0


@pytest.fixture(scope="module")
def training(running_pool: FaultPool, tmp_path_factory: pytest.TempPathFactory) -> PacedTraining:
    """What is trained, once without a fault."""
    running_pool.heal()
    return PacedTraining(running_pool.client, tmp_path_factory.mktemp("paced"))


def test_every_part_is_restarted_in_turn_and_nothing_is_lost(
    pool: FaultPool, training: PacedTraining
) -> None:
    cluster = pool.cluster
    cluster.start_worker("second", wait=False)
    away_s = 0.0  # the longest that a server was

    def worker(name: str) -> None:
        assert cluster.terminate(name) == 0
        cluster.start_worker(name)

    def control() -> None:
        assert cluster.terminate("control") == 0
        cluster.start_control()
        cluster.wait_for("control")

    def parameter_server() -> None:
        assert cluster.terminate("ps") == 0
        cluster.start_ps()

    def server(one: ValkeyServer | S3Server) -> None:
        nonlocal away_s
        began = time.monotonic()
        one.stop()  # SIGTERM: it writes down what it has
        one.start()
        away_s = max(away_s, time.monotonic() - began)

    restarts: list[Callable[[], None]] = [
        lambda: server(pool.state),
        lambda: worker("worker"),
        parameter_server,
        lambda: server(pool.s3),
        lambda: worker("second"),
        control,
        lambda: server(pool.broker),
    ]
    cluster.wait_for("second")

    job, audit, last_workers = train_meanwhile(training, restarts)

    assert last_workers == {"worker", "second"}
    assert len(audit.generations) == 1
    # A server is away for as long as it takes to stop and start, which is not ours to bound.
    assert longest_pause(job) < away_s + BOUND_S
    pool.check_nothing_left(job)


@pytest.mark.full
def test_every_process_is_replaced_by_a_new_one_and_nobody_waits(
    pool: FaultPool, training: PacedTraining
) -> None:
    cluster = pool.cluster
    cluster.start_worker("old", wait=False)
    names = itertools.count(1)

    def replace_worker(old: str) -> None:
        cluster.start_worker(f"new-{next(names)}")
        assert cluster.terminate(old) == 0

    def replace_control() -> None:
        cluster.start_control("new-control")
        cluster.wait_for("new-control")
        assert cluster.terminate("control") == 0

    def replace_parameter_server() -> None:
        cluster.start_ps("new-ps")
        eventually(lambda: "is up" in cluster.log("new-ps"), within_s=20, what="second server")
        assert cluster.terminate("ps") == 0

    replacements: list[Callable[[], None]] = [
        lambda: replace_worker("worker"),
        replace_parameter_server,
        lambda: replace_worker("old"),
        replace_control,
    ]
    cluster.wait_for("old")

    job, audit, last_workers = train_meanwhile(training, replacements)

    assert last_workers == {"new-1", "new-2"}
    assert len(audit.generations) == 1
    # Who goes hands back what it has in hand: nobody waited for a lease to run out.
    assert {kind for *_, kind in failed_attempts(audit)} <= {"drain"}
    assert longest_pause(job) < PAUSE_S
    pool.check_nothing_left(job)


def train_meanwhile(
    training: PacedTraining, changes: Sequence[Callable[[], None]]
) -> tuple[Job, JobAudit, set[str]]:
    """Make the changes in turn while a job trains, each once the job has gone on.

    Returns:
        The finished job, its audit, and whose work counted in the epochs after the last change.
    """
    job = training.submit()
    for change in changes:
        training.wait_until_it_goes_on(job, within_s=BOUND_S)
        change()
    training.wait_until_it_goes_on(job, within_s=BOUND_S)
    epoch = job.status().epoch
    audit = training.finish(job)
    later = [row for row in audit.epochs if row.epoch > epoch]
    return job, audit, {share.worker for row in later for share in row.shares}
