"""The list of finished jobs on a real S3 server: quick by its summaries, right without them."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from brokers.objects.store import ObjectStore
from brokers.settings import Settings, child_environment
from kubeml.client.client import Client
from kubeml.jobs import summary
from kubeml.jobs.results import EpochRow, JobStatus
from kubeml.jobs.spec import State
from tests.jobs import make_end, make_row, make_spec


@pytest.fixture
def client(s3_settings: Settings, objects: ObjectStore) -> Iterator[Client]:
    """A client of a bucket that holds no job of another test."""
    for prefix in ("active/", summary.ROOT):
        objects.delete_prefix(prefix)
    with Client(s3_settings) as client:
        for job_id in client.backends.records.all_ids():
            client.backends.records.delete(job_id)
        yield client


def begin(client: Client, job_id: str, *, epochs: int = 2) -> None:
    """A job with so many epochs done."""
    client.backends.records.create(make_spec(job_id))
    for epoch in range(1, epochs + 1):
        client.backends.records.add_row(job_id, make_row(epoch), {})


def finish(client: Client, job_id: str, life: int = 0, **facts: Any) -> None:
    client.backends.records.set_end(job_id, life, make_end(job_id, **facts), [])


def listed(client: Client) -> dict[str, JobStatus]:
    return {status.id: status for status in client.histories()}


def by_records(client: Client, job_id: str) -> JobStatus:
    """The job as its own records have it."""
    return client.job(job_id).status()


class Requests:
    """Counts a client's requests to S3, by operation."""

    def __init__(self, client: Client) -> None:
        self.made: list[str] = []
        client.backends.objects.client.meta.events.register("before-call.s3", self._note)

    def _note(self, model: Any, **_: Any) -> None:
        self.made.append(model.name)


def test_finished_jobs_are_listed_without_a_request_for_each(client: Client) -> None:
    for number in range(5):
        begin(client, f"job-{number}")
        finish(client, f"job-{number}")
    requests = Requests(client)

    jobs = client.histories()

    assert requests.made == ["ListObjectsV2"] * 3
    assert {job.id: job for job in jobs} == {
        f"job-{number}": by_records(client, f"job-{number}") for number in range(5)
    }


def test_history_list_never_imports_torch(client: Client, s3_settings: Settings) -> None:
    begin(client, "job")
    finish(client, "job")
    code = (
        "import sys; from kubeml.cli import app\n"
        "code = app.run(['history', 'list', '-q'])\n"
        "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=child_environment(s3_settings),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "job\n"), done.stderr


def test_running_job_is_listed_as_its_records_have_it(client: Client) -> None:
    begin(client, "job", epochs=1)

    assert not listed(client)["job"].state.is_final


def test_failed_job_is_listed_with_its_whole_traceback(client: Client) -> None:
    reason = "train() raised\n" + "a line of a traceback\n" * 100
    begin(client, "job")
    finish(client, "job", state=State.FAILED, reason=reason)

    assert listed(client)["job"].reason == reason
    assert listed(client)["job"] == by_records(client, "job")


def test_job_that_ended_before_there_were_summaries_gets_one(
    client: Client, objects: ObjectStore
) -> None:
    begin(client, "job")
    finish(client, "job")
    objects.delete_prefix(summary.ROOT)

    first = listed(client)
    requests = Requests(client)
    again = listed(client)

    assert first == again == {"job": by_records(client, "job")}
    assert requests.made[:3] == ["ListObjectsV2"] * 3
    assert "GetObject" not in requests.made[:3]
    assert objects.exists(summary.to_key(first["job"], life=0))


def test_resumed_job_is_listed_by_its_last_life(client: Client, objects: ObjectStore) -> None:
    begin(client, "job")
    finish(client, "job", state=State.FAILED, reason="one")
    client.backends.records.add_life(replace(make_spec("job"), epochs=3), 1)

    under_way = listed(client)["job"]
    finish(client, "job", life=1, reason="two")
    ended = listed(client)["job"]

    assert not under_way.state.is_final
    assert (ended.state, ended.reason, ended.spec.epochs) == (State.DONE, "two", 3)
    assert len(list(objects.list(summary.ROOT))) == 1


def test_late_summary_of_an_earlier_life_changes_nothing(
    client: Client, objects: ObjectStore
) -> None:
    begin(client, "job")
    finish(client, "job", state=State.FAILED, reason="one")
    early = [info.key for info in objects.list(summary.ROOT)]
    client.backends.records.add_life(make_spec("job"), 1)
    finish(client, "job", life=1, reason="two")

    objects.put(early[0], b"")

    assert listed(client)["job"].reason == "two"


def test_crash_between_the_end_and_its_summary_is_made_good_by_whoever_tidies_up(
    client: Client, objects: ObjectStore
) -> None:
    begin(client, "job")
    finish(client, "job", state=State.FAILED, reason="one")
    client.backends.records.add_life(make_spec("job"), 1)
    objects.put_json("jobs/job/end-000001.json", make_end("job", reason="two").to_wire())

    before = listed(client)["job"].reason
    client.backends.records.deactivate("job")

    assert (before, listed(client)["job"].reason) == ("two", "two")


def test_id_of_a_deleted_job_can_be_used_again(client: Client, objects: ObjectStore) -> None:
    begin(client, "job")
    finish(client, "job", reason="old")
    left = [info.key for info in objects.list(summary.ROOT)]

    client.delete_history("job")
    gone = listed(client)
    begin(client, "job")
    finish(client, "job", reason="new")
    # Left over by somebody who listed the old job while it was deleted, and was killed.
    objects.put(left[0], b"")

    assert gone == {}
    assert listed(client)["job"].reason == "new"


def test_summary_written_while_its_job_is_deleted_does_not_stay(
    client: Client, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client, "job")
    finish(client, "job")
    read_row = client.backends.records.last_row

    def read_row_and_lose_the_job(job_id: str, epoch: int) -> EpochRow | None:
        row = read_row(job_id, epoch)
        client.backends.records.delete(job_id)
        return row

    monkeypatch.setattr(client.backends.records, "last_row", read_row_and_lose_the_job)
    client.backends.records.summarise("job")

    assert list(objects.list(summary.ROOT)) == []


def test_prune_removes_ended_jobs_alone_and_leaves_nothing_of_them(
    client: Client, objects: ObjectStore
) -> None:
    begin(client, "running")
    for number in range(3):
        begin(client, f"job-{number}")
        finish(client, f"job-{number}")

    gone = client.prune_histories()

    assert sorted(gone) == ["job-0", "job-1", "job-2"]
    assert list(listed(client)) == client.backends.records.all_ids() == ["running"]
    assert not [info.key for info in objects.list("") if "job-" in info.key]
