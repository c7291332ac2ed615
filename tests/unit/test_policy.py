"""The throughput policy: KubeML's thresholds, with a floor, a ceiling and a capacity check."""

from dataclasses import replace

import pytest

from kubeml.job import EpochRow
from kubeml.policy import Pool, static, throughput

ROW = EpochRow(
    epoch=1, parallelism=4, num_workers=4, rounds=1, steps=1, samples=1, train_loss=0.0,
    val_loss=None, accuracy=None, duration_s=10.0, validation_s=0.0, retries=0, decision="",
    weights_sha256="", ended_at=0.0,
)  # fmt: skip


def history(*durations: float, parallelism: int = 4) -> list[EpochRow]:
    return [
        replace(ROW, epoch=i + 1, duration_s=d, parallelism=parallelism)
        for i, d in enumerate(durations)
    ]


def decide(rows: list[EpochRow], *, ceiling: int = 16, capacity: int = 16) -> int:
    return throughput(rows, 4, ceiling, Pool(capacity=capacity)).parallelism


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ((), 4),
        ((10.0,), 5),
        ((10.0, 9.0), 5),
        ((10.0, 10.5), 5),
        ((10.0, 10.6), 4),
        ((10.0, 11.9), 4),
        ((10.0, 12.0), 3),
        ((10.0, 30.0), 3),
    ],
    ids=str,
)
def test_throughput_follows_the_epochs_own_durations(
    durations: tuple[float, ...], expected: int
) -> None:
    assert decide(history(*durations)) == expected


def test_throughput_never_goes_below_one() -> None:
    assert decide(history(10.0, 50.0, parallelism=1)) == 1


def test_throughput_never_goes_above_the_ceiling() -> None:
    assert decide(history(10.0, 5.0), ceiling=4) == 4
    assert decide([], ceiling=2) == 2


def test_throughput_does_not_grow_beyond_the_workers_there_are() -> None:
    decision = throughput(history(10.0, 5.0), 4, 16, Pool(capacity=3))

    assert decision.parallelism == 4
    assert "3 workers" in decision.why


def test_duration_compared_is_the_last_epochs_not_the_sum() -> None:
    # The original measured from the start of the job, so later epochs always looked slower.
    assert decide(history(10.0, 10.0, 10.0)) == 5


def test_static_keeps_what_was_asked_for() -> None:
    assert static(history(10.0, 50.0), 6, 16, Pool(capacity=1)).parallelism == 6
