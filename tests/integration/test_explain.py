"""``task explain`` of jobs on the real pool: what it says adds up to what was there."""

import json
from pathlib import Path

import pytest

from brokers.rounds.store import RoundStore
from kubeml.analysis.explain import JobTimes
from kubeml.client.client import Client
from kubeml.errors import InvalidOption
from kubeml.jobs.round_times import PHASES
from tests.cli import Cli
from tests.cluster import Cluster
from tests.integration.conftest import Submit, wait_for_round


def require_sums(times: JobTimes) -> None:
    """Every round's phases, slot by slot, add up to its wall time within 2 %."""
    for epoch in times.epochs:
        assert epoch.num_untimed == 0
        assert len(epoch.rounds) == epoch.num_rounds > 0
        for round_ in epoch.rounds:
            for phases in [round_.phases, *(slot.phases for slot in round_.slots)]:
                assert set(phases) == set(PHASES)
                assert min(phases.values()) >= 0
                assert sum(phases.values()) == pytest.approx(round_.wall_s, rel=0.02)


@pytest.fixture(scope="module")
def finished(submit: Submit) -> str:
    """Id of a job of two epochs, 7 rounds of 3 slots each on two workers, after its end."""
    job = submit(epochs=2, k=4, parallelism=3)
    job.wait(60)
    return job.id


def test_phases_add_up_to_the_rounds_and_rounds_to_the_epoch(client: Client, finished: str) -> None:
    job = client.job(finished)

    times = job.explain()

    require_sums(times)
    for epoch, row in zip(times.epochs, job.history(), strict=True):
        # The rounds follow each other without a gap: the history's own measure, PLAN to last merge.
        assert epoch.wall_s == pytest.approx(row.duration_s, rel=0.02, abs=0.003)
        assert sum(epoch.phases.values()) == pytest.approx(epoch.wall_s, rel=0.02)
        assert sum(epoch.shares.values()) == pytest.approx(1)
        assert min(epoch.phases[p] for p in ("queue", "fetch", "compute", "push", "merge")) > 0
        assert epoch.phases["failed"] == 0
        assert epoch.between["planning"] is not None
        assert epoch.between["validation"] == row.validation_s
    first, last = times.epochs
    assert first.between["record"] is not None
    assert first.between["record"] > 0
    assert last.between["record"] is None
    assert times.bottleneck


def test_workers_measure_within_the_time_that_the_server_saw(client: Client, finished: str) -> None:
    # Nothing had to be scaled down to add up.
    for epoch in client.job(finished).explain().epochs:
        for round_ in epoch.rounds:
            assert all(slot.phases["other"] > 0 for slot in round_.slots)


def test_an_epoch_under_way_is_explained_from_the_live_state(
    client: Client, submit: Submit
) -> None:
    job = submit("slow", epochs=1, k=2, parallelism=2)
    wait_for_round(job, round_number=2)

    times = job.explain()
    job.stop()

    (epoch,) = times.epochs
    assert (epoch.epoch, epoch.is_running) == (1, True)
    assert epoch.num_rounds >= 2
    require_sums(times)


def test_a_ledger_without_timings_is_told_as_such(
    client: Client, cluster: Cluster, submit: Submit, tmp_path: Path
) -> None:
    job = submit(epochs=1)
    job.wait(60)
    ledger = client.backends.records.ledger(job.id, 1)
    assert ledger is not None
    del ledger["timings"], ledger["planning_ms"]
    client.backends.objects.put_json(f"history/{job.id}/ledger-000001.json", ledger)

    ran = Cli(cluster.settings, tmp_path)(f"task explain --id {job.id}")

    assert ran.code == 0
    assert "epoch 1 has no timings" in ran.err
    assert ran.out == ""
    assert client.job(job.id).audit(verify=True).is_exact


def test_the_command_draws_bars_and_names_the_bottleneck(
    cluster: Cluster, client: Client, finished: str, tmp_path: Path
) -> None:
    cli = Cli(cluster.settings, tmp_path)

    shown = cli(f"task explain --id {finished}")
    one = cli(f"task explain {finished} --epoch 2 --json")

    times = client.job(finished).explain()
    assert shown.code == 0, shown.err
    assert "epoch   1" in shown.out
    assert "slot    2" in shown.out
    assert f"bottleneck: {times.bottleneck}" in shown.out
    assert "what helps" in shown.out
    assert "\x1b[" not in shown.out
    assert [epoch["epoch"] for epoch in one.json["epochs"]] == [2]
    whole = cli(f"task explain --id {finished} --json").json
    assert whole == json.loads(json.dumps(times.to_wire()))
    assert whole["bottleneck"] == whole["holdups"][0]["phase"]


def test_unknown_jobs_and_epochs_are_refused(
    cluster: Cluster, client: Client, finished: str, tmp_path: Path
) -> None:
    cli = Cli(cluster.settings, tmp_path)

    assert cli("task explain --id nosuchjob").code == 3
    assert cli(f"task explain --id {finished} --epoch 9").code == 2
    with pytest.raises(InvalidOption, match="--epoch is 9"):
        client.job(finished).explain(epoch=9)


def test_what_is_finished_is_explained_after_the_live_state_is_gone(
    client: Client, finished: str
) -> None:
    before = client.job(finished).explain()

    RoundStore(client.backends.redis, finished).forget()

    assert client.job(finished).explain() == before
