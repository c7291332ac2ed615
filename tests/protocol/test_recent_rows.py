"""The scheduler's memory of history rows, on a real S3 server."""

from collections.abc import Iterator

import pytest

from brokers.objects.store import ObjectStore
from kubeml.jobs.records import JobRecords
from kubeml.scheduling.scheduler import RecentRows
from tests.jobs import make_row, make_spec


@pytest.fixture
def records(objects: ObjectStore, job_id: str) -> Iterator[JobRecords]:
    """The records, with twelve epochs of this test's job."""
    records = JobRecords(objects)
    for epoch in range(1, 13):
        records.add_row(job_id, make_row(epoch, train_loss=1 / epoch), {})
    yield records
    records.delete(job_id)


def epochs(rows: RecentRows, job_id: str, epoch: int, *, created_at: float = 1.5) -> list[int]:
    spec = make_spec(job_id, created_at=created_at)
    return [row.epoch for row in rows.before(spec, epoch, most=4)]


def test_the_last_rows_come_in_order(records: JobRecords, job_id: str) -> None:
    rows = RecentRows(records)

    assert epochs(rows, job_id, 1) == []
    assert epochs(rows, job_id, 3) == [1, 2]
    assert epochs(rows, job_id, 13) == [9, 10, 11, 12]


def test_rows_are_read_once_unless_it_is_another_job_of_that_id(
    records: JobRecords, job_id: str
) -> None:
    rows = RecentRows(records)
    first = rows.before(make_spec(job_id), 5, most=4)
    records.delete(job_id)
    records.add_row(job_id, make_row(5), {})

    assert rows.before(make_spec(job_id), 5, most=4) == first
    assert epochs(rows, job_id, 6) == [2, 3, 4, 5]
    assert epochs(rows, job_id, 6, created_at=99.5) == [5]


def test_rows_before_a_gap_are_left_out(records: JobRecords, job_id: str) -> None:
    # An epoch that is being recorded by somebody else, or was lost.
    assert epochs(RecentRows(records), job_id, 14) == []
    assert epochs(RecentRows(records), job_id, 13) == [9, 10, 11, 12]


def test_rows_that_were_not_there_are_looked_for_again(records: JobRecords, job_id: str) -> None:
    rows = RecentRows(records)
    assert epochs(rows, job_id, 14) == []

    records.add_row(job_id, make_row(13), {})

    assert epochs(rows, job_id, 14) == [10, 11, 12, 13]
