"""What a follower sees: events folded into speed, progress and time left."""

import pytest

from kubeml.cli.history import sparkline
from kubeml.cli.views.follow import JobView, duration, many


def begin(view: JobView, *, epoch: int = 1, at: float = 100.0) -> str:
    fields = {"epoch": epoch, "epochs": 2, "parallelism": 2, "rounds": 4, "samples": 400,
              "decision": "first epoch"}  # fmt: skip
    return view.apply("epoch", at, fields)


def merge(view: JobView, number: int, *, at: float, epoch: int = 1) -> str:
    fields = {"epoch": epoch, "round": number, "rounds": 4, "samples": 100, "loss": 1.0 / number,
              "workers": 2, "version": number}  # fmt: skip
    return view.apply("round", at, fields)


def test_speed_and_time_left_come_from_the_rounds() -> None:
    view = JobView(epochs=2)

    line = begin(view)
    merge(view, 1, at=101.0)
    merge(view, 2, at=102.0)

    assert line == "epoch 1/2: 2 slots (first epoch)"
    assert (view.round, view.rounds, view.loss, view.workers) == (2, 4, 0.5, 2)
    assert view.samples_per_s == 100.0
    assert view.eta_s == 6.0


def test_nothing_is_claimed_before_the_first_round() -> None:
    view = JobView(epochs=2)
    begin(view)

    assert view.samples_per_s == 0.0
    assert view.eta_s is None


def test_rounds_of_a_rolled_back_epoch_do_not_count() -> None:
    view = JobView(epochs=2)
    begin(view, epoch=2)

    merge(view, 1, at=101.0, epoch=1)

    assert view.done == 0


def test_finished_epoch_is_one_line() -> None:
    view = JobView(epochs=2)
    begin(view)
    row = {"epoch": 1, "duration_s": 4.0, "samples": 400, "train_loss": 0.25, "accuracy": 91.5,
           "retries": 1}  # fmt: skip

    line = view.apply("checkpoint", 104.0, {"epoch": 1, "row": row})

    assert line == (
        "epoch 1/2 done in 4.0 s, 100 samples/s, loss 0.2500, accuracy 91.50 %, "
        "1 slot trained again"
    )


def test_retry_shows_the_first_line_of_why() -> None:
    fields = {"epoch": 1, "round": 0, "slot": 3, "why": "train(): ValueError: x\nTraceback ..."}

    line = JobView(epochs=1).apply("retry", 1.0, fields)

    assert line == "epoch 1: slot 3 is trained again: train(): ValueError: x"


def test_durations_read_well() -> None:
    assert [duration(s) for s in (None, 0.4, 59.4, 61, 3720)] == [
        "-",
        "0s",
        "59s",
        "1m01s",
        "1h02m",
    ]


def test_sparkline_spans_lowest_to_highest() -> None:
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert len(sparkline([float(i) for i in range(1000)])) == 60


def test_reason_to_wait_is_told_once_and_again_after_the_job_was_served() -> None:
    view = JobView(epochs=1)

    lines = [view.wait_for(why) for why in ("no worker", "no worker", "busy", "", "busy", "")]

    assert lines == ["PENDING: no worker", "", "PENDING: busy", "", "PENDING: busy", ""]
    assert view.pending == ""


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 slots"), (1, "1 slot"), ("1", "1 slot"), (2, "2 slots"), ("0 to 1", "0 to 1 slots")],
)
def test_one_of_something_is_no_plural(count: int | str, text: str) -> None:
    assert many(count, "slot") == text
