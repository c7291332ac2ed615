"""What Prometheus scrapes from real processes, against the records; and their log lines."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.client.job import Job
from tests.cluster import on_database
from tests.eventually import eventually
from tests.integration.conftest import Submit, wait_for_round
from tests.measured_pool import ROWS, MeasuredPool, put_functions, running_pool
from tests.scrape import Scrape, labelled, value

#: A job's series stay so long after it has left.
KEEP_S = 3.0

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool(s3_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredPool]:
    settings = on_database(s3_settings, 6).with_changes(
        home=tmp_path_factory.mktemp("metrics"), lease_s=2.0, log_format="json",
        metrics_keep_s=KEEP_S,
    )  # fmt: skip
    yield from running_pool(settings)


@pytest.fixture(scope="module")
def submit(pool: MeasuredPool, tmp_path_factory: pytest.TempPathFactory) -> Submit:
    client = pool.cluster.client
    put_functions(client, tmp_path_factory.mktemp("code"))

    def submit(function: str, **options: object) -> Job:
        values: dict[str, object] = {"epochs": 2, "batch_size": 16, "lr": 0.05, "static": True}
        return client.train(function, "measured", **(values | options))  # type: ignore[arg-type]

    return submit


def stop(job: Job) -> None:
    """Let the pool be idle again."""
    job.stop()
    eventually(lambda: job.status().end, within_s=30, what="end of the job, on the record")


def failures(client: Client, job: Job) -> Counter[str]:
    """Reason to failed attempts, by the ledgers of all epochs."""
    books = [client.backends.records.ledger(job.id, row.epoch) for row in job.history()]
    return Counter(entry["kind"] for book in books if book for entry in book["failed"])


def change(after: Scrape, before: Scrape, name: str, **labels: str) -> float:
    """By how much a counter has grown."""
    now = value(after, name, **labels)
    assert now is not None, f"no {name} {labels}"
    return now - (value(before, name, **labels) or 0.0)


def total(scrapes: list[Scrape], earlier: list[Scrape], name: str, **labels: str) -> float:
    """By how much a counter of several processes has grown."""
    pairs = zip(scrapes, earlier, strict=True)
    return sum(change(after, before, name, **labels) for after, before in pairs)


def test_every_number_is_that_of_the_records(pool: MeasuredPool, submit: Submit) -> None:
    client = pool.cluster.client
    workers_before = [worker.read() for worker in pool.workers]
    control_before, ps_before = pool.control.read(), pool.ps.read()
    job = submit("flaky", epochs=3, parallelism=2, k=4)
    job.wait(timeout_s=90)
    rows = job.history()
    last = rows[-1]

    after = pool.ps.read()
    control = pool.control.read()
    workers = [worker.read() for worker in pool.workers]

    def of_job(name: str, **labels: str) -> float | None:
        return value(after, name, jobid=job.id, **labels)

    assert of_job("kubeml_job_validation_loss") == last.val_loss
    assert of_job("kubeml_job_validation_accuracy") == last.accuracy
    assert of_job("kubeml_job_train_loss") == last.train_loss
    assert of_job("kubeml_job_epoch_duration_seconds") == last.duration_s
    assert of_job("kubeml_job_parallelism") == last.parallelism == 2
    assert of_job("kubeml_job_state", state="DONE") == 1
    assert of_job("kubeml_job_epoch") == 3
    assert of_job("kubeml_job_rounds_total") == sum(row.rounds for row in rows) > 3
    assert of_job("kubeml_job_samples_total") == sum(row.samples for row in rows) == 3 * ROWS
    failed = failures(client, job)
    assert failed["error"] == 1
    for reason in ("lost", "error", "bad", "drain"):
        assert of_job("kubeml_job_retries_total", reason=reason) == failed[reason]
    assert of_job("kubeml_job_lost_workers_total") == failed["lost"]
    assert of_job("kubeml_job_resizes_total", direction="up") == 0
    for phase, seconds in last.phases.items():
        assert of_job("kubeml_job_epoch_phase_seconds", phase=phase) == seconds
    # It has left: nothing is to be expected of it any more.
    assert of_job("kubeml_job_left_seconds") is None
    assert of_job("kubeml_job_checkpoint_age_seconds") is None
    rounds = sum(row.rounds for row in rows)
    assert change(after, ps_before, "kubeml_round_seconds_count") == rounds
    phases = ("fetch", "data", "compute", "push", "merge", "rest")
    for phase in phases:
        name = "kubeml_round_phase_seconds_count"
        assert change(after, ps_before, name, phase=phase) == rounds
    parts = sum(
        change(after, ps_before, "kubeml_round_phase_seconds_sum", phase=phase) for phase in phases
    )
    whole = change(after, ps_before, "kubeml_round_seconds_sum")
    assert whole <= parts + 1e-9
    trained = sum(row.duration_s for row in rows)
    assert whole == pytest.approx(trained, rel=0.3)
    entries = [
        entry
        for row in rows
        for merged in (client.backends.records.ledger(job.id, row.epoch) or {})["rounds"].values()
        for entry in merged
    ]
    layout = client.backends.checkpoints.at(job.id, 0).layout  # type: ignore[union-attr]
    merged_bytes = change(after, ps_before, "kubeml_merge_bytes_total")
    assert merged_bytes == len(entries) * layout.weights_bytes
    assert total(workers, workers_before, "kubeml_worker_samples_total", stage="train") == 3 * ROWS
    assert total(workers, workers_before, "kubeml_worker_samples_total", stage="validate") == 900
    outcome = "kubeml_worker_slots_total"
    assert total(workers, workers_before, outcome, stage="train", outcome="in") == len(entries)
    assert total(workers, workers_before, outcome, stage="train", outcome="error") == 1
    assert total(workers, workers_before, outcome, stage="init", outcome="in") == 1
    name = "kubeml_worker_phase_seconds_count"
    assert total(workers, workers_before, name, phase="compute") == len(entries)
    steps = sum(row.steps for row in rows)
    assert total(workers, workers_before, "kubeml_worker_batches_total") > steps
    plans = "kubeml_scheduler_plans_total"
    assert change(control, control_before, plans, policy="static", change="first") == 1
    assert change(control, control_before, plans, policy="static", change="same") == 2
    assert change(control, control_before, "kubeml_scheduler_plan_seconds_count") == 3


def test_series_vanish_when_the_job_has_left(pool: MeasuredPool, submit: Submit) -> None:
    job = submit("tiny", epochs=1)
    job.wait(timeout_s=60)
    assert "kubeml_job_state" in labelled(pool.ps.read(), jobid=job.id)

    eventually(
        lambda: not labelled(pool.ps.read(), jobid=job.id), within_s=KEEP_S + 10,
        what="scrape without the job",
    )  # fmt: skip


def test_pool_and_pace_while_a_job_runs_and_is_resized(pool: MeasuredPool, submit: Submit) -> None:
    job = submit("slow", epochs=50, parallelism=2, k=2)
    try:
        wait_for_round(job, epoch=1, round_number=4)

        def settled() -> Scrape | None:
            now = pool.ps.read()
            working = value(now, "kubeml_workers", device="cpu", stage="train")
            # In mid-epoch: between two of them there is no progress.
            is_told = working and all(
                _of(now, job, f"kubeml_job_{name}") for name in ("left_seconds", "progress_ratio")
            )
            return now if is_told and _of(now, job, "kubeml_job_workers") == 2 else None

        now = eventually(settled, within_s=30, what="pace of two workers")

        assert value(now, "kubeml_queue_wanted_workers", queue="kubeml.train.cpu") == 2
        assert value(now, "kubeml_queue_wanted_workers", queue="kubeml.train.gpu") == 0
        assert value(now, "kubeml_queue_running_workers", queue="kubeml.train.cpu") == 2
        assert value(now, "kubeml_queue_workers", queue="kubeml.train.cpu") == 2
        assert value(now, "kubeml_job_running_total", type="train") == 1
        assert value(now, "kubeml_jobs", state="RUN") == 1
        for role, number in (("ps", 1), ("control", 1), ("worker", 2)):
            assert value(now, "kubeml_nodes", role=role, device="cpu") == number
        for server in ("state", "broker", "s3"):
            assert value(now, "kubeml_server_up", server=server) == 1
        assert 0 < (_of(now, job, "kubeml_job_samples_per_second") or 0) < 1600
        assert _of(now, job, "kubeml_job_epochs") == 50
        assert 0 < (_of(now, job, "kubeml_job_progress_ratio") or 0) < 1

        job.scale("3:3")
        wait_for_round(job, epoch=2, round_number=1)
        eventually(
            lambda: _of(pool.ps.read(), job, "kubeml_job_parallelism") == 3,
            within_s=10, what="3 slots",
        )  # fmt: skip
        resized = pool.ps.read()
        resizes = {
            way: value(resized, "kubeml_job_resizes_total", jobid=job.id, direction=way)
            for way in ("up", "down")
        }
        assert resizes == {"up": 1, "down": 0}
        age = _of(resized, job, "kubeml_job_checkpoint_age_seconds")
        assert age is not None
        assert 0 <= age < 60
        # Of the last epoch recorded by then: they are short, and it may not be the first.
        losses = {row.train_loss for row in job.history()}
        assert _of(resized, job, "kubeml_job_train_loss") in losses
        assert (
            value(pool.control.read(), "kubeml_scheduler_plans_total", policy="static", change="up")
            == 1
        )
    finally:
        stop(job)


def _of(scrape: Scrape, job: Job, name: str) -> float | None:
    return value(scrape, name, jobid=job.id)


def test_job_is_told_by_one_server_and_by_the_next_one_when_that_dies(
    pool: MeasuredPool, submit: Submit
) -> None:
    # Epochs of 4 s: long enough for the second server to take over within the second one.
    job = submit("slow", epochs=50, parallelism=2, batch_size=3)
    try:
        wait_for_round(job, round_number=0)
        pool.start_ps("second", pool.second)
        eventually(
            lambda: value(pool.second.read(), "kubeml_nodes", role="ps", device="cpu") == 2,
            within_s=20, what="second parameter server",
        )  # fmt: skip
        wait_for_round(job, epoch=2, round_number=0)
        assert _of(pool.ps.read(), job, "kubeml_job_epoch")
        assert _of(pool.second.read(), job, "kubeml_job_epoch") is None
        pool.cluster.kill("ps")

        def told() -> Scrape | None:
            now = pool.second.read()
            return now if _of(now, job, "kubeml_job_train_loss") is not None else None

        second = eventually(told, within_s=20, what="the job at the second server")

        # Before it has recorded an epoch itself: what it tells, the dead one has recorded.
        assert _of(second, job, "kubeml_job_epoch") == 2
        assert _of(second, job, "kubeml_job_train_loss") == job.history()[0].train_loss
        assert value(second, "kubeml_job_retries_total", jobid=job.id, reason="lost") == 0
    finally:
        stop(job)
        pool.cluster.kill("second")
        pool.start_ps("ps", pool.ps)


def test_killed_worker_is_counted_as_lost(pool: MeasuredPool, submit: Submit) -> None:
    # Without copies of slow slots: one that is handed in sooner leaves nothing to be lost.
    job = submit("slow", epochs=50, parallelism=2, hedge=False)
    wait_for_round(job, epoch=1, round_number=0)
    eventually(
        lambda: value(pool.ps.read(), "kubeml_workers", device="cpu", stage="train") == 2,
        within_s=20, what="two workers at work",
    )  # fmt: skip

    pool.cluster.kill("worker-2")

    def lost() -> float | None:
        return _of(pool.ps.read(), job, "kubeml_job_lost_workers_total")

    assert eventually(lost, within_s=20, what="count of lost workers") == 1
    assert value(pool.ps.read(), "kubeml_job_retries_total", jobid=job.id, reason="lost") == 1
    stop(job)
    pool.start_worker(1)
    pool.cluster.wait_for("worker-2")


def test_log_lines_are_json_and_say_what_they_are_about(pool: MeasuredPool, submit: Submit) -> None:
    job = submit("flaky", epochs=1, parallelism=2)
    job.wait(timeout_s=60)

    everything = {name: pool.lines(name) for name in ("worker-1", "worker-2", "control", "ps")}
    mine = {
        name: [line for line in lines if line.get("job") == job.id]
        for name, lines in everything.items()
    }

    for lines in everything.values():
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert any(line.get("epoch") == 1 for line in mine["control"])
    assert any(line.get("epoch") == 1 for line in mine["ps"])
    assert mine["worker-1"] + mine["worker-2"]
    reports = [
        line
        for name in ("worker-1", "worker-2")
        for line in everything[name]
        if "the cable came loose" in line["message"]
    ]
    assert len(reports) == 1
    assert (reports[0]["epoch"], reports[0]["slot"], reports[0]["level"]) == (1, 1, "WARNING")
    assert isinstance(reports[0]["round"], int)
    text = json.dumps(everything)
    settings = pool.cluster.settings
    for secret in (settings.s3_secret_key, settings.broker_url.split(":")[2].split("@")[0]):
        assert secret
        assert secret not in text


def exported(pool: MeasuredPool) -> set[str]:
    """Every name of a kubeml sample that the pool's processes serve now."""
    names: set[str] = set()
    for exporter in (pool.ps, pool.control, pool.workers[0]):
        for family in text_string_to_metric_families(exporter.text()):
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
            names |= {family.name + end for end in ends.get(family.type, [""])}
    return {name for name in names if name.startswith("kubeml_")}


def named(text: str) -> set[str]:
    """Every metric of kubeml that a text names."""
    return set(re.findall(r"\bkubeml_[a-z_]+\b", text))


def queries() -> list[str]:
    """The expressions of the dashboard."""
    board = json.loads((ROOT / "k8s/monitoring/grafana/kubeml.json").read_text())
    return [t["expr"] for panel in board["panels"] for t in panel.get("targets", [])]


def test_dashboard_alerts_and_documents_name_what_is_exported(pool: MeasuredPool) -> None:
    names = exported(pool)
    plain = {re.sub("_(bucket|sum|count)$", "", name) for name in names}

    alerts = named((ROOT / "k8s/monitoring/alerts.yaml").read_text())
    asked = named("\n".join(queries()))
    told = named((ROOT / "docs/reference/metrics.md").read_text())

    assert len(alerts) > 10
    assert len(asked) > 30
    assert alerts - names == set()
    assert asked - names == set()
    assert told == plain
