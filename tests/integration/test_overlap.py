"""``--overlap`` on the real pool: it learns, trains ahead, and says where its time went."""

import pytest

from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.errors import InvalidOption, JobFailed
from tests.integration.conftest import Submit
from tests.integration.test_explain import require_sums


def ahead_s(client: Client, job: Job) -> list[float]:
    """Seconds trained before it was given out, of every slot's round after an epoch's first."""
    records = client.backends.records
    return [
        entry["timings"]["ahead"]
        for row in job.history()
        for index, entries in (records.ledger(job.id, row.epoch) or {})["rounds"].items()
        for entry in entries
        if int(index) > 0
    ]


def test_job_with_overlap_learns_as_well_as_without(client: Client, submit: Submit) -> None:
    jobs = [submit(epochs=3, k=4, parallelism=2, overlap=overlap) for overlap in (False, True)]

    plain, overlapped = (job.wait(90) for job in jobs)

    assert plain.accuracy is not None
    assert overlapped.accuracy is not None
    assert overlapped.accuracy > 90
    assert overlapped.accuracy == pytest.approx(plain.accuracy, abs=3)
    assert overlapped.weights_sha256 != plain.weights_sha256
    assert [row.samples for row in jobs[1].history()] == [1200] * 3


def test_rounds_are_trained_before_they_are_given_out(client: Client, submit: Submit) -> None:
    # Each batch takes longer than a merge: the first one at least lies before the next round opens.
    job = submit("slow", epochs=1, k=4, parallelism=2, overlap=True)
    job.wait(90)

    seconds = ahead_s(client, job)

    assert seconds
    assert sum(1 for s in seconds if s > 0) >= len(seconds) / 2
    assert job.history()[0].retries == 0


def test_phases_of_rounds_trained_ahead_add_up(client: Client, submit: Submit) -> None:
    job = submit("slow", epochs=2, k=4, parallelism=3, overlap=True)
    job.wait(90)

    require_sums(job.explain())


def test_log_lines_come_once_and_from_where_they_count(submit: Submit) -> None:
    job = submit("slow", epochs=1, k=10, parallelism=2, overlap=True)
    job.wait(90)

    places = [(line.round, line.slot) for line in job.logs()]

    assert sorted(places) == [(index, slot) for index in range(4) for slot in range(2)]


def test_function_that_raises_while_trained_ahead_fails_the_job_with_its_traceback(
    submit: Submit,
) -> None:
    # 38 batches of a slot: the last one, in its tenth round, is a short one.
    job = submit("raises_late", epochs=3, k=4, parallelism=2, overlap=True)

    with pytest.raises(JobFailed) as caught:
        job.wait(60)

    assert "the paper has run out" in caught.value.reason
    assert "raises_late.py" in caught.value.reason
    events = list(job.events())
    assert [event.kind for event in events].count("round") == 9
    # What failed while it was trained ahead was not counted, nor told.
    assert {e.fields["round"] for e in events if e.kind == "retry"} == {9}


@pytest.mark.parametrize("options", [{"k": -1}, {"k": 4, "optimizer_state": "local"}])
def test_overlap_is_refused_where_it_cannot_be(submit: Submit, options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption):
        submit(overlap=True, **options)
