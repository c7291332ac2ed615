"""The embedded stack that grows with its jobs, and shrinks to nothing without them."""

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.stack.stack import StackStatus, status
from tests.cli import Cli
from tests.eventually import eventually
from tests.integration.conftest import FUNCTIONS, make_points

IDLE_S = 2.0
BOTH_AT_WORK = r"kubeml\.train\.cpu +\d +2 +3 +2"


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A stack of 0 to 2 workers, with a dataset and functions that take their time."""
    folder = tmp_path_factory.mktemp("elastic")
    command = Cli(Settings(home=folder / "home"), folder)
    # Where the servers are is for the profile to say.
    command.env = dict.fromkeys(("KUBEML_BROKER_URL", "KUBEML_STATE_URL"), "")
    command.env["KUBEML_IDLE_S"] = str(IDLE_S)
    started = command("up --min-workers 0 --max-workers 2")
    assert started.code == 0, started.err
    assert "0 to 2 workers" in started.err
    data, labels = make_points(700)
    with Client(loaded(command)) as client:
        client.datasets.create(
            "points", train_data=data[:600], train_labels=labels[:600], test_data=data[600:],
            test_labels=labels[600:],
        )  # fmt: skip
        for name in ("slow", "patient"):
            code = folder / name
            code.mkdir()
            (code / f"{name}.py").write_text((FUNCTIONS / f"{name}.py").read_text())
            tiny = (FUNCTIONS / "tiny.py").read_text()
            (code / "tiny.py").write_text(tiny.split("def main")[0])
            client.functions.create(name, code, check=False)
    yield command
    command("down")


@pytest.fixture
def client(cli: Cli) -> Iterator[Client]:
    """A client of that stack, which has no workers yet."""
    eventually(lambda: not workers(cli), within_s=30, what="pool without workers")
    with Client(loaded(cli)) as made:
        yield made


def loaded(cli: Cli) -> Settings:
    return Settings.load({"home": cli.settings.home}, environ={})


def now(cli: Cli) -> StackStatus:
    return status(loaded(cli))


def workers(cli: Cli) -> list[str]:
    return [p.name for p in now(cli).processes if p.role == "worker"]


def submit(client: Client, function: str = "slow", *, epochs: int = 1, **options: object) -> Job:
    return client.train(
        function,
        "points",
        epochs=epochs,
        batch_size=16,
        lr=0.05,
        static=True,
        **options,  # type: ignore[arg-type]
    )


def cpu(client: Client) -> tuple[int, int, int, int]:
    """Queued, running, wanted and workers of the CPU queue."""
    row = next(row for row in client.demand() if row.device == "cpu")
    return row.queued, row.running, row.wanted, row.workers


def test_pool_grows_from_zero_for_a_job_and_shrinks_to_zero_after_it(
    cli: Cli, client: Client
) -> None:
    submitted = time.monotonic()
    job = submit(client, epochs=12, k=2, parallelism=3)
    at_once = job.status()
    eventually(lambda: workers(cli) == ["worker-1"], within_s=5, what="a worker process")
    took_s = time.monotonic() - submitted
    eventually(lambda: workers(cli) == ["worker-1", "worker-2"], within_s=30, what="a second one")
    busy = eventually(
        lambda: row if (row := cpu(client))[1] == 2 else None, within_s=30, what="both at work"
    )
    seen = cli("status --json").json
    # Between two slots of a worker it runs none, so that one look may see one at work.
    shown = eventually(
        lambda: out if re.search(BOTH_AT_WORK, out := cli("status").out) else None,
        within_s=30,
        what="a status with both at work",
    )

    end = job.wait(90)

    eventually(lambda: not workers(cli), within_s=IDLE_S + 15, what="pool without workers")
    assert (at_once.shown_state, at_once.reason) == ("PENDING", "a worker is being started")
    assert at_once.to_wire()["state"] == "PENDING"
    assert at_once.state == "INIT"
    assert took_s < 3
    assert busy[2:] == (3, 2)
    assert end.epoch == 12
    # Three slots on two workers; whoever was sent away had nothing in hand.
    assert [(row.num_workers, row.retries) for row in job.history()][-1] == (2, 0)
    assert job.audit().is_exact
    assert cpu(client) == (0, 0, 0, 0)
    assert (seen["min_workers"], seen["max_workers"], seen["workers"]) == (0, 2, 2)
    assert {row["queue"]: row["wanted"] for row in seen["demand"]}["kubeml.train.cpu"] == 3
    declared = {n["name"]: n for n in seen["nodes"]}["worker-1"]
    assert 0 < declared["cores"] <= (psutil.cpu_count() or 1)
    assert 0 < declared["memory_bytes"] <= psutil.virtual_memory().total
    assert re.search(rf"worker-1 .* {declared['cores']} cores?, [\d.]+ GiB", shown), shown


def test_worker_that_is_not_wanted_any_more_goes_while_others_work_on(
    cli: Cli, client: Client
) -> None:
    one = submit(client, epochs=500, k=2, parallelism=1)
    two = submit(client, epochs=6, k=2, parallelism=1)
    eventually(lambda: len(workers(cli)) == 2, within_s=30, what="a worker for each job")
    three = submit(client, epochs=1, k=2, parallelism=1)
    waits = ("PENDING", "waits for a free worker (2 busy with other jobs)")
    eventually(
        lambda: waits in [(job.shown_state, job.reason) for job in client.jobs()],
        within_s=30, what="one of three jobs that waits for one of two workers",
    )  # fmt: skip
    two.wait(60)
    three.wait(60)

    eventually(lambda: len(workers(cli)) == 1, within_s=IDLE_S + 15, what="one worker alone")
    left = one.status()

    one.stop()
    eventually(lambda: one.status().state.is_final, within_s=30, what="the end of the long job")
    retries = [row.retries for row in one.history()]
    assert not left.state.is_final
    assert len(retries) >= 2
    assert set(retries) == {0}
    assert one.audit().is_exact


def test_job_that_no_worker_can_serve_says_so_at_once(
    cli: Cli, client: Client, tmp_path: Path
) -> None:
    reason = "no gpu worker in the pool (0 cpu workers, more on demand)"
    submitted = cli("train -f slow -d points --device gpu --id wants-gpu --json")
    shown = cli("task show wants-gpu")
    listed = cli("task list")
    as_json = {job["id"]: job for job in cli("task list --json").json}["wants-gpu"]
    top = cli("top")
    in_view = {job["id"]: job for job in cli("top --json").json["jobs"]}["wants-gpu"]
    gpu = next(row for row in client.demand() if row.device == "gpu")
    told = tmp_path / "told"
    watching = cli.start("task watch wants-gpu", err=told)
    eventually(lambda: f"PENDING: {reason}" in told.read_text(), within_s=45, what="the reason")
    # It has time to say it again.
    stopper = threading.Timer(2.0, client.job("wants-gpu").stop)
    stopper.start()
    code = watching.wait(45)
    stopper.join()

    assert (submitted.json["state"], submitted.json["reason"]) == ("PENDING", reason)
    assert re.search(r"^state +PENDING$", shown.out, re.M)
    assert f"reason       {reason}" in shown.out
    assert re.search(r"^wants-gpu .* PENDING ", listed.out, re.M)
    assert (as_json["state"], as_json["reason"]) == ("PENDING", reason)
    assert (in_view["state"], in_view["reason"]) == ("PENDING", reason)
    assert re.search(rf"^wants-gpu .* PENDING .* {re.escape(reason)}$", top.out, re.M)
    assert (gpu.running, gpu.wanted, gpu.workers) == (0, 1, 0)
    assert code == 7
    assert told.read_text().count(f"PENDING: {reason}") == 1
    assert workers(cli) == []


def test_inference_finds_a_worker_in_an_empty_pool(cli: Cli, client: Client) -> None:
    job = submit(client)
    job.wait(90)
    eventually(lambda: not workers(cli), within_s=IDLE_S + 15, what="pool without workers")

    answer = job.infer([[0.0] * 8], timeout_s=45)

    assert len(answer) == 1


def test_worker_stays_while_its_answer_is_waited_for(cli: Cli, client: Client) -> None:
    job = submit(client, "patient", k=-1)
    job.wait(90)
    with ThreadPoolExecutor(1) as asking:
        long = asking.submit(job.infer, [IDLE_S + 3], timeout_s=60)
        at_work = eventually(
            lambda: row if (row := cpu(client))[1] else None, within_s=45, what="one that infers"
        )
        eventually(
            lambda: [worker.stage for worker in client.pool().workers] == ["infer"],
            within_s=IDLE_S + 3, what="it, in the picture of the pool",
        )  # fmt: skip
        (pid,) = long.result()
    (next_pid,) = job.infer([0], timeout_s=45)

    assert at_work == (0, 1, 1, 1)
    # Nobody sent it away meanwhile, though its request had long left the queue.
    assert next_pid == pid


@pytest.mark.full
def test_worker_of_an_elastic_pool_that_dies_is_started_again(cli: Cli, client: Client) -> None:
    job = submit(client, epochs=2, k=2, parallelism=1)
    eventually(lambda: job.status().round > 0, within_s=60, what="a merged round")
    victim = next(p for p in now(cli).processes if p.name == "worker-1")
    psutil.Process(victim.pid).kill()

    end = job.wait(90)

    assert end.epoch == 2
    assert job.audit().is_exact


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("--workers 2 --max-workers 3", "--workers is 2, beside --min-workers or --max-workers"),
        ("--workers 2 --min-workers 0", "--workers is 2, beside --min-workers or --max-workers"),
        ("--min-workers 3 --max-workers 2", "--min-workers is 3, expected --max-workers (2)"),
        ("--max-workers 0", "--max-workers"),
        ("--min-workers -1", "--min-workers"),
        ("--max-workers 65", "--max-workers"),
    ],
)
def test_bounds_that_make_no_sense_start_nothing(tmp_path: Path, line: str, fault: str) -> None:
    command = Cli(Settings(home=tmp_path / "home"), tmp_path)

    ran = command(f"up {line}")

    assert ran.code == 2, ran.err
    assert fault in ran.err
    assert not (tmp_path / "home").exists()


def test_pool_without_workers_is_sound_if_it_would_start_some(cli: Cli, client: Client) -> None:
    assert client.demand()

    doctor = cli("doctor --json")

    assert doctor.code == 0, doctor.out
    found = {finding["check"]: finding for finding in doctor.json}["worker processes"]
    assert (found["level"], found["found"]) == ("ok", "0 (2 more on demand)")


def test_up_says_what_a_running_stack_has_instead(cli: Cli) -> None:
    same = cli("up --min-workers 0 --max-workers 2")
    other = cli("up --workers 1")

    assert "it has" not in same.err
    assert "it has 0 to 2 workers, not 1: kubeml down, then up again" in other.err
