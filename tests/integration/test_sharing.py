"""Several jobs on one pool: who gets the workers, and that it costs nobody a sample or a bit."""

from collections.abc import Iterator

import pytest

from brokers.pool.live_job import LiveJob
from brokers.pool.workload import read_workload
from brokers.rounds.store import RoundStore
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.errors import JobStopped
from kubeml.jobs.spec import State
from tests.eventually import eventually
from tests.integration.conftest import Submit, wait_for_round

#: Rounds of 2 slow batches, many of them.
LONG = {"epochs": 8, "k": 2, "parallelism": 2}


@pytest.fixture
def long_job(submit: Submit) -> Iterator[Job]:
    """A job that keeps both workers busy until it is stopped."""
    job = submit("slow", **(LONG | {"epochs": 50}))
    wait_for_round(job, epoch=1, round_number=2)
    yield job
    if not job.status().state.is_final:
        end(job)


def end(job: Job) -> None:
    job.stop()
    with pytest.raises(JobStopped):
        job.wait(30)


def live(client: Client, job: Job) -> LiveJob:
    return next(row for row in read_workload(client.backends.redis).jobs if row.id == job.id)


def test_a_new_job_begins_at_once_on_a_busy_pool_and_both_get_on(
    client: Client, submit: Submit, long_job: Job
) -> None:
    began_in = RoundStore(client.backends.redis, long_job.id).snapshot()

    other = submit("slow", **(LONG | {"epochs": 2}))
    other.wait(90)

    status = long_job.status()
    # It was not starved meanwhile, and nothing of it was lost or done again.
    assert other.status().state == State.DONE
    assert (status.epoch, status.round) > (began_in.head.epoch, began_in.head.round)
    assert RoundStore(client.backends.redis, long_job.id).snapshot().head.retries == 0
    assert other.audit().is_exact
    first = other.history()[0]
    assert (first.retries, first.parallelism) == (0, 2)


def test_a_shared_job_has_the_bits_of_one_that_was_alone(submit: Submit, long_job: Job) -> None:
    shared = submit("slow", **(LONG | {"epochs": 1}))
    shared.wait(90)
    end(long_job)
    alone = submit("slow", **(LONG | {"epochs": 1}))
    alone.wait(60)

    assert shared.history()[0].weights_sha256 == alone.history()[0].weights_sha256


def test_the_shares_are_laid_down_while_workers_are_short_and_not_after(
    client: Client, submit: Submit, long_job: Job
) -> None:
    assert live(client, long_job).allot is None

    heavy = submit("slow", **(LONG | {"epochs": 50}), priority=3)
    eventually(lambda: live(client, heavy).allot is not None, within_s=10, what="a share")
    assert live(client, heavy).weight == 3
    eventually(
        lambda: live(client, heavy).allot == 2 and live(client, long_job).allot in {0, 1},
        within_s=20,
        what="one and a half workers for one job, and half a worker for the other",
    )

    end(heavy)
    eventually(lambda: live(client, long_job).allot is None, within_s=20, what="no bound")


def test_no_more_workers_take_part_than_the_job_may_have(client: Client, submit: Submit) -> None:
    job = submit("slow", epochs=1, k=2, parallelism=4, max_workers=1)
    most = 0

    def is_over() -> bool:
        nonlocal most
        rows = [row for row in read_workload(client.backends.redis).jobs if row.id == job.id]
        most = max([most, *(row.num_live for row in rows)])
        return job.status().state.is_final

    eventually(is_over, within_s=90, what="end of the job")

    assert job.status().state == State.DONE
    assert most == 1
    assert job.audit().is_exact
