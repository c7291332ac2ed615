"""The simple policies: N as asked, and KubeML's thresholds with floor, ceiling and capacity."""

from dataclasses import replace
from typing import Any

import pytest

from kubeml.jobs.results import EpochRow
from kubeml.scheduling.policies import LOOKS_BACK, POLICIES, Pool, Situation, decide
from kubeml.scheduling.policies.simple import static, throughput
from tests.unit.scheduling.epochs import make_epoch

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


def situation(
    rows: list[EpochRow], *, capacity: int = 16, max_workers: int = 0, **changes: Any
) -> Situation:
    pool = Pool(capacity=capacity, max_workers=max_workers)
    values = {"initial": 4, "floor": 1, "ceiling": 16, "pool": pool} | changes
    return Situation(history=rows, **values)


def throughput_of(rows: list[EpochRow], **changes: Any) -> int:
    return throughput(situation(rows, **changes)).parallelism


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
    assert throughput_of(history(*durations)) == expected


def test_throughput_never_goes_below_the_floor() -> None:
    assert throughput_of(history(10.0, 50.0, parallelism=1)) == 1
    assert throughput_of(history(10.0, 50.0, parallelism=3), floor=3) == 3


def test_throughput_never_goes_above_the_ceiling() -> None:
    assert throughput_of(history(10.0, 5.0), ceiling=4) == 4
    assert throughput_of([], ceiling=2) == 2


def test_throughput_does_not_grow_beyond_the_workers_there_are() -> None:
    decision = throughput(situation(history(10.0, 5.0), capacity=3))

    assert decision.parallelism == 4
    assert "3 workers" in decision.why


def test_throughput_does_not_grow_beyond_the_workers_the_job_may_have() -> None:
    decision = throughput(situation(history(10.0, 5.0), max_workers=4))

    assert decision.parallelism == 4
    assert "--max-workers is 4" in decision.why


def test_throughput_obeys_what_the_user_scaled_to() -> None:
    assert throughput_of(history(10.0, 5.0), floor=8) == 8
    assert throughput_of(history(10.0, 50.0), ceiling=2) == 2


def test_duration_compared_is_the_last_epochs_not_the_sum() -> None:
    # The original measured from the start of the job, so later epochs always looked slower.
    assert throughput_of(history(10.0, 10.0, 10.0)) == 5


def test_static_keeps_what_was_asked_for() -> None:
    now = situation(history(10.0, 50.0, parallelism=6), capacity=1, floor=6, ceiling=6)

    assert static(replace(now, history=[], initial=6)).parallelism == 6
    assert static(now).parallelism == 6


def test_static_changes_only_as_the_user_scales() -> None:
    rows = history(10.0, parallelism=6)

    up, kept = (static(situation(rows, floor=n, ceiling=16)) for n in (8, 2))

    assert (up.parallelism, kept.parallelism) == (8, 6)
    assert "by the user" in up.why


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_says_what_it_expects_once_an_epoch_has_timings(policy: str) -> None:
    rows = [make_epoch(epoch, slots=4, workers=4) for epoch in (1, 2, 3)]
    now = situation(rows, num_rows=rows[0].samples, batch_size=32, k=8, floor=4, ceiling=4)

    assert decide(policy, now).expected_s == pytest.approx(rows[-1].duration_s, rel=0.05)
    assert decide(policy, replace(now, history=[])).expected_s is None
    assert decide(policy, replace(now, pool=Pool(capacity=0))).expected_s is None
    assert policy in LOOKS_BACK
