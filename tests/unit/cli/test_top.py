"""``kubeml top`` on screens of any size: nothing is wider or higher, and what is cut says so."""

import io
import re

import pytest
from rich.console import Console

from kubeml.cli.views.top import screen
from kubeml.pool.view import PoolJob, PoolQueue, PoolView, PoolWorker


def a_job(job_id: str = "1b25c6e0", **changes: object) -> PoolJob:
    values: dict[str, object] = {
        "id": job_id, "state": "RUN", "function": "resnet-cifar", "device": "gpu", "epoch": 12,
        "epochs": 100, "round": 117, "rounds": 391, "progress": 0.456, "slots": 16, "workers": 12,
        "share": 0.75, "samples_per_s": 12345.6, "epoch_left_s": 61.0, "left_s": 7325.0,
        "waiting": 4, "oldest_wait_s": 12.3,
    }  # fmt: skip
    return PoolJob(**(values | changes))  # type: ignore[arg-type]


def a_worker(name: str = "worker-1", **changes: object) -> PoolWorker:
    values: dict[str, object] = {
        "name": name, "host": "node-7.example", "device": "gpu", "gpu": "3", "stage": "train",
        "job": "1b25c6e0", "epoch": 12, "round": 117, "slot": 11, "attempt": 1, "for_s": 2.4,
        "samples_per_s": 1028.8,
    }  # fmt: skip
    return PoolWorker(**(values | changes))  # type: ignore[arg-type]


def a_pool(*, jobs: int = 2, workers: int = 3) -> PoolView:
    return PoolView(
        at=1_800_000_000.0,
        jobs=[a_job(f"{number:08x}") for number in range(jobs)],
        workers=[a_worker(f"worker-{number + 1}") for number in range(workers)],
        queues=[
            PoolQueue(name="kubeml.train.cpu", messages=0, workers=0),
            PoolQueue(name="kubeml.train.gpu", messages=4, workers=12),
            PoolQueue(name="kubeml.control", messages=0, workers=1),
        ],
    )


def drawn(
    view: PoolView, width: int | None, height: int | None = None, trouble: str = ""
) -> list[str]:
    """The lines as they stand on a terminal that is wider, without their blanks at the end."""
    console = Console(width=300, file=io.StringIO(), record=True, color_system=None)
    console.print(screen(view, width=width, height=height, trouble=trouble))
    return [line.rstrip() for line in console.export_text().splitlines()]


def headings(lines: list[str]) -> list[list[str]]:
    return [
        re.split(r" {2,}", line) for line in lines if line.startswith(("JOB", "WORKER", "QUEUE"))
    ]


def test_a_wide_screen_shows_everything() -> None:
    lines = drawn(a_pool(), 140)

    jobs, workers, queues = headings(lines)
    assert jobs == [
        "JOB", "FUNCTION", "STATE", "EPOCH", "ROUND", "DONE", "N", "W", "SHARE", "SAMPLES/S",
        "EPOCH ETA", "ETA", "WAIT",
    ]  # fmt: skip
    assert workers == [
        "WORKER", "HOST", "DEVICE", "DOES", "JOB", "EPOCH", "ROUND", "SLOT", "TRY", "FOR",
        "SAMPLES/S",
    ]  # fmt: skip
    assert queues == ["QUEUE", "MESSAGES", "PROCESSES"]
    assert lines[3].split() == [
        "00000000", "resnet-cifar", "RUN", "12/100", "117/391", "████░░░░░░", "46%", "16", "12",
        "75%", "12,346", "1m01s", "2h02m", "12s",
    ]  # fmt: skip
    assert lines[7].split() == [
        "worker-1", "node-7.example", "gpu", "3", "train", "1b25c6e0", "12", "117", "11", "1",
        "2s", "1,029",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 140


def test_eighty_columns_keep_what_matters_whole() -> None:
    lines = drawn(a_pool(), 80)

    jobs, workers, _ = headings(lines)
    assert jobs == [
        "JOB", "FUNCTION", "STATE", "EPOCH", "DONE", "N", "W", "SAMPLES/S", "ETA", "WAIT",
    ]  # fmt: skip
    assert workers == [
        "WORKER",
        "DEVICE",
        "DOES",
        "JOB",
        "EPOCH",
        "ROUND",
        "SLOT",
        "TRY",
        "FOR",
        "SAMPLES/S",
    ]
    assert max(map(len, lines)) <= 80
    assert "…" not in "\n".join(lines)


def test_a_pending_job_says_so_and_why_where_there_is_room() -> None:
    view = a_pool()
    view.jobs[1] = a_job("waits", reason="waits for a free worker (2 busy with other jobs)")

    whole, wide, narrow = drawn(view, None), drawn(view, 180), drawn(view, 80)

    assert whole[2].endswith("  REASON")
    assert whole[4].endswith("  waits for a free worker (2 busy with other jobs)")
    assert wide[4].endswith("  waits for a free worker (2 …")
    assert "REASON" not in narrow[2]
    for lines in (whole, wide, narrow):
        assert " RUN " in lines[3]
        assert " PENDING " in lines[4]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    view = a_pool()
    long = PoolView(
        at=view.at, queues=view.queues,
        jobs=[a_job("j" * 63, function="f" * 63)], workers=[a_worker("w" * 63, job="j" * 63)],
    )  # fmt: skip

    console.print(screen(long, width=width))

    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    # No line was broken: the first one, three sections, and empty lines between them.
    assert len(lines) == 1 + 3 + 2 * 2 + 3
    assert {"JOB", "STATE", "SAMPLES/S", "ETA"} <= {word for line in lines for word in line.split()}


def test_queues_that_nobody_serves_and_nobody_fills_are_left_out() -> None:
    text = "\n".join(drawn(a_pool(), 80))

    assert "kubeml.train.cpu" not in text
    assert "kubeml.train.gpu" in text


@pytest.mark.parametrize("height", [10, 14, 24, 50])
@pytest.mark.parametrize(("jobs", "workers"), [(0, 0), (1, 40), (40, 1), (40, 40), (3, 3)])
def test_what_does_not_fit_is_counted(height: int, jobs: int, workers: int) -> None:
    lines = drawn(a_pool(jobs=jobs, workers=workers), 80, height)

    assert len(lines) <= height
    text = "\n".join(lines)
    hidden = [int(number) for number in re.findall(r"… and (\d+) more", text)]
    shown = len(re.findall(r"^(?:0000|worker-)", text, re.MULTILINE))
    assert shown + sum(hidden) == jobs + workers
    assert all(number > 1 for number in hidden)


@pytest.mark.parametrize(("jobs", "workers", "many"), [(1, 40, "worker-"), (40, 1, "0000")])
def test_room_that_one_table_leaves_is_the_others(jobs: int, workers: int, many: str) -> None:
    lines = drawn(a_pool(jobs=jobs, workers=workers), 80, 24)

    # All lines but: the first, three headings and empty ones, the one of the other table, two
    # queues, and what says how many are hidden.
    assert sum(line.startswith(many) for line in lines) == 24 - 1 - 6 - 1 - 2 - 1


def test_empty_pool_says_so() -> None:
    lines = drawn(PoolView(at=1_800_000_000.0), 80)

    assert "no jobs under way" in lines
    assert "no workers" in lines


def test_unknown_things_are_dashes() -> None:
    job = a_job(
        state="", function="", epoch=0, epochs=0, progress=None, share=None, slots=0,
        samples_per_s=None, epoch_left_s=None, left_s=None, oldest_wait_s=None, round=0, rounds=0,
    )  # fmt: skip
    idle = PoolWorker(name="w1", host="", device="cpu", gpu="")

    lines = drawn(PoolView(at=1.0, jobs=[job], workers=[idle]), 140)

    assert lines[3].split() == [
        "1b25c6e0", "-", "-", "0/-", "0/-", "░░░░░░░░░░", "-", "-", "12", "-", "-", "-", "-", "-",
    ]  # fmt: skip
    assert lines[6].split() == ["w1", "-", "cpu", "idle", *"-------"]


def test_trouble_is_told_on_the_first_line() -> None:
    first = drawn(a_pool(), 120, trouble="redis at redis://x:1 does not answer")[0]

    assert first.endswith("2 jobs, 3 workers (0 idle)  redis at redis://x:1 does not answer")
    assert len(drawn(a_pool(), 60, trouble="redis at redis://x:1 does not answer")[0]) == 60


def test_names_are_no_markup() -> None:
    view = PoolView(at=1.0, workers=[a_worker("[red]w[/red]")])

    assert "[red]w[/red]" in "\n".join(drawn(view, 140))


def test_where_there_is_no_screen_nothing_is_cut() -> None:
    long = PoolView(
        at=1_800_000_000.0,
        jobs=[a_job("j" * 63, function="f" * 63), a_job()],
        workers=[a_worker("w" * 63, host="h" * 63, job="k" * 63)],
    )
    console = Console(width=10**6, file=io.StringIO(), record=True, color_system=None)

    console.print(screen(long, width=None, trouble="t" * 200))

    lines = console.export_text().splitlines()
    words = " ".join(lines).split()
    assert {"j" * 63, "f" * 63, "w" * 63, "h" * 63, "k" * 63, "t" * 200} <= set(words)
    assert [heading[0] for heading in headings(lines)] == ["JOB", "WORKER"]
    assert len(lines) == 1 + 1 + 3 + 1 + 2
