"""The dials of N and W on a running job: what they change, when, and that they are not lost."""

import re
from pathlib import Path

import pytest

from brokers.rounds.store import RoundStore
from kubeml.client.client import Client
from kubeml.errors import Conflict, InvalidOption
from kubeml.jobs.scale import Scale
from tests.cli import Cli
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.integration.conftest import Submit, wait_for_round


@pytest.fixture
def cli(cluster: Cluster, tmp_path: Path) -> Cli:
    """The command, on the pool."""
    return Cli(cluster.settings, tmp_path)


def test_scaling_a_running_job_changes_n_at_the_next_epoch_and_the_history_says_so(
    submit: Submit, cli: Cli
) -> None:
    # Long enough an epoch for a command that starts in the midst of it.
    job = submit("slow", epochs=3, k=5, parallelism=1, batch_size=4)
    wait_for_round(job, epoch=1, round_number=1)

    scaled = cli(f"task scale --id {job.id} 3 --max-workers 2 --json")
    status = job.status()
    shown = cli(f"task show --id {job.id}")
    job.wait(90)

    assert scaled.code == 0, scaled.err
    assert {name: scaled.json[name] for name in ("floor", "ceiling", "max_workers", "number")} == {
        "floor": 3, "ceiling": 3, "max_workers": 2, "number": 1,
    }  # fmt: skip
    # Read after a command that may have taken longer than the rest of the epoch.
    assert status.parallelism == (1 if status.epoch == 1 else 3)
    assert (status.floor, status.ceiling, status.max_workers) == (3, 3, 2)
    assert "static, 3 to 3" in shown.out
    assert "at most 2" in shown.out
    assert re.search(r"^device +cpu$", shown.out, re.M)
    assert re.search(r"^priority +1$", shown.out, re.M)
    rows = job.history()
    assert [row.parallelism for row in rows] == [1, 3, 3]
    assert [row.decision for row in rows] == [
        "static", "static, scaled to 3:3 by the user", "static"
    ]  # fmt: skip
    assert job.audit().is_exact
    table, document = cli(f"history get --id {job.id}"), cli(f"history get --id {job.id} --json")
    assert "EXPECTED" in table.out
    assert "scaled to 3:3" in table.out
    assert document.json[1]["expected_s"] == rows[1].expected_s
    assert cli(f"task scale --id {job.id} 2").code == 4


def test_an_epochs_row_says_where_its_time_went_and_what_was_expected(submit: Submit) -> None:
    job = submit("slow", epochs=3, k=5, static=False, parallelism="1:2")
    job.wait(90)

    first, *later = job.history()
    assert (first.parallelism, first.decision, first.expected_s) == (1, "first epoch", None)
    assert all(row.expected_s is not None and row.expected_s > 0 for row in later)
    assert all(row.decision.startswith(("up: ", "kept: ")) for row in later)
    for row in (first, *later):
        walls = sum(seconds for phase, seconds in row.phases.items() if phase != "ahead")
        assert walls == pytest.approx(row.duration_s, abs=0.1)
        assert row.phases["compute"] > 0.5 * row.duration_s
        assert row.mean_workers is not None
        assert 1 <= row.mean_workers <= row.parallelism


def test_scale_outlives_the_live_state(client: Client, submit: Submit) -> None:
    job = submit("slow", epochs=4, k=2, static=False, parallelism="1:1")
    wait_for_round(job, epoch=2)
    job.scale("2:2", max_workers=7)
    store = RoundStore(client.backends.redis, job.id)

    client.backends.redis.delete(store.key("h"))
    head = eventually(store.head, within_s=30, what="rebuilt head")
    job.wait(90)

    assert (head.floor, head.ceiling, head.max_workers) == (2, 2, 7)
    assert len(job.audit().generations) == 2
    assert [row.parallelism for row in job.history()] == [1, 2, 2, 2]


def test_a_change_that_the_head_was_not_told_of_is_made_up_for(
    client: Client, submit: Submit
) -> None:
    job = submit("slow", epochs=3, k=2, parallelism=1)
    wait_for_round(job, epoch=1)

    # All that a client wrote before it died.
    client.backends.records.add_scale(job.id, Scale(floor=2, ceiling=2, max_workers=5, number=1))

    eventually(lambda: job.status().max_workers == 5, within_s=60, what="head that knows of it")
    job.wait(90)
    assert [row.parallelism for row in job.history()] == [1, 2, 2]


def test_changes_add_up_and_bad_ones_change_nothing(client: Client, submit: Submit) -> None:
    job = submit("slow", epochs=50, k=2, static=False, parallelism=1)
    wait_for_round(job)

    job.scale(max_workers=3)
    now = job.scale("2:4")
    for bad in ("4:2", "0", "many", 0, "1201:1300", True):
        with pytest.raises(InvalidOption):
            job.scale(bad)
    with pytest.raises(InvalidOption, match="--max-workers"):
        job.scale("1:2", max_workers=-1)
    with pytest.raises(InvalidOption, match="missing"):
        job.scale()
    kept = client.backends.records.scale(job.spec)
    job.stop()

    assert (now.floor, now.ceiling, now.max_workers, now.number) == (2, 4, 3, 2)
    assert kept == now
    eventually(lambda: job.status().end, within_s=30, what="end")
    with pytest.raises(Conflict, match="ended already"):
        job.scale(2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--parallelism 8:2", "--parallelism"),
        ("--parallelism many", "--parallelism"),
        ("--parallelism 2:8 --max-parallelism 4", "--max-parallelism"),
        ("--parallelism 2:8 --static", "--static"),
        ("--policy luck", "--policy"),
        ("--policy throughput --static", "--static"),
        ("--deadline soon", "--deadline"),
        ("--deadline 30m --static", "--deadline"),
        ("--deadline 30m --policy throughput", "--deadline"),
        ("--max-workers -1", "--max-workers"),
    ],
)
def test_bad_goals_are_refused_and_no_job_is_made(
    client: Client, submit: Submit, cli: Cli, options: str, says: str
) -> None:
    submit("tiny").wait(60)
    before = client.backends.records.all_ids()

    ran = cli(f"train -f tiny -d points {options}")

    assert ran.code == 2
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert client.backends.records.all_ids() == before


def test_goals_reach_the_job(client: Client, submit: Submit, cli: Cli) -> None:
    submit("tiny").wait(60)

    ran = cli(
        "train -f tiny -d points -e 3 --parallelism 1:2 --deadline 30m --max-workers 2 "
        "--policy efficiency --follow"
    )

    assert ran.code == 0, ran.err
    job = client.job(ran.out.strip())
    assert (job.spec.min_parallelism, job.spec.max_parallelism) == (1, 2)
    assert (job.spec.deadline_s, job.spec.max_workers) == (1800.0, 2)
    assert all("for the deadline" in row.decision for row in job.history()[1:])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("task scale --id nobody 2", 3),
        ("task scale 2", 2),
    ],
)
def test_bad_scale_lines_are_refused(cli: Cli, line: str, code: int) -> None:
    ran = cli(line)

    assert ran.code == code
    assert "Traceback" not in ran.err
