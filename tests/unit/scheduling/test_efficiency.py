"""The policy ``efficiency``: where N settles, that it stays there, and what deadlines do."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeml.jobs.results import EpochRow
from kubeml.scheduling.policies import LOOKS_BACK, Decision, Pool, Situation, decide
from kubeml.scheduling.policies.efficiency import Goodput, efficiency
from kubeml.scheduling.policies.epoch_model import EpochModel
from tests.unit.scheduling.epochs import TRACES, Trace, Truth, make_epoch

WINDOW = LOOKS_BACK["efficiency"]


def situation(rows: list[EpochRow], truth: Truth, **changes: Any) -> Situation:
    values: dict[str, Any] = {
        "initial": 1, "floor": 1, "ceiling": 16, "pool": Pool(capacity=16),
        "num_rows": truth.num_rows, "batch_size": truth.batch_size, "k": truth.k,
    }  # fmt: skip
    return Situation(history=rows[-WINDOW:], **(values | changes))


def run(
    truth: Truth, *, epochs: int, workers: Callable[[int], int] = lambda epoch: 16, **changes: Any
) -> tuple[list[EpochRow], list[Decision]]:
    """Train with these costs, N chosen by the policy before every epoch."""
    rows: list[EpochRow] = []
    decisions = []
    for epoch in range(1, epochs + 1):
        pool = Pool(capacity=workers(epoch))
        decision = efficiency(situation(rows, truth, pool=pool, **changes))
        before = rows[-1] if rows else None
        rows.append(
            make_epoch(
                epoch, slots=decision.parallelism, workers=workers(epoch), truth=truth,
                before=before,
            )
        )  # fmt: skip
        decisions.append(decision)
    return rows, decisions


def slots(rows: list[EpochRow]) -> list[int]:
    return [row.parallelism for row in rows]


def changes_of(rows: list[EpochRow]) -> int:
    return sum(before != after for before, after in pairwise(slots(rows)))


def test_cheap_merges_let_n_grow_to_where_the_batch_stops_to_pay() -> None:
    truth = Truth(work_s=0.01, merge_s=0.001, merge_slot_s=0.0, overhead_s=0.001)

    rows, _ = run(truth, epochs=30)

    assert slots(rows)[:3] == [1, 2, 2]
    assert all(after <= 2 * before for before, after in pairwise(slots(rows)))
    assert 12 <= rows[-1].parallelism <= 16


def test_merges_that_take_their_time_for_each_slot_keep_n_small() -> None:
    # A slot works 0.25 s in a round.
    truth = Truth(work_s=0.001, merge_s=0.0, merge_slot_s=0.2, overhead_s=0.0)

    rows, decisions = run(truth, epochs=20)

    assert rows[-1].parallelism <= 2
    assert "needed" in decisions[-1].why


def test_a_job_that_began_with_too_many_slots_shrinks() -> None:
    truth = Truth(work_s=0.001, merge_s=0.0, merge_slot_s=0.2)

    rows, _ = run(truth, epochs=12, initial=16)

    assert slots(rows)[:3] == [16, 8, 8]
    assert rows[-1].parallelism <= 4


def test_workers_that_hamper_each_other_are_noticed_and_given_up() -> None:
    # Two cores: the third and fourth worker take from the others what they do.
    truth = Truth(work_s=0.01, crowding=0.8, merge_s=0.001, merge_slot_s=0.0)

    rows, decisions = run(truth, epochs=20)

    assert max(slots(rows)) <= 2
    assert rows[-1].parallelism == 1
    assert changes_of(rows) <= 3
    assert any("down" in decision.why for decision in decisions)


def test_losses_that_fall_no_quicker_with_more_slots_end_the_growth() -> None:
    cheap = Truth(work_s=0.01, merge_s=0.001, merge_slot_s=0.0)

    useful, useless = (run(replace(cheap, noise_scale=phi), epochs=40)[0] for phi in (1e6, 16.0))

    assert useless[-1].parallelism < useful[-1].parallelism / 2


def test_n_changes_only_after_an_epoch_was_measured_and_less_often_at_every_turn() -> None:
    truth = Truth(work_s=0.01, merge_s=0.001, merge_slot_s=0.0)
    grown = [make_epoch(e, slots=n, workers=16, truth=truth) for e, n in ((1, 1), (2, 2))]

    early = efficiency(situation(grown, truth))
    later = efficiency(situation([*grown, make_epoch(3, slots=2, workers=16, truth=truth)], truth))
    turned = [make_epoch(e, slots=n, workers=16, truth=truth) for e, n in ((1, 2), (2, 1), (3, 2))]
    waiting = [
        efficiency(
            situation(
                [*turned, *(make_epoch(4 + i, slots=2, workers=16, truth=truth) for i in range(n))],
                truth,
            )
        ).parallelism
        for n in range(4)
    ]

    assert (early.parallelism, later.parallelism) == (2, 4)
    assert "one epoch more is measured first" in early.why
    assert waiting == [2, 2, 2, 4]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    work=st.floats(1e-4, 1e-1),
    merge=st.floats(0, 0.2),
    merge_slot=st.floats(0, 0.1),
    crowding=st.floats(0, 1),
    noise_scale=st.floats(16, 1e5),
    jitter=st.floats(0, 0.2),
    k=st.sampled_from([1, 8, 64, -1]),
    initial=st.integers(1, 16),
    ceiling=st.integers(1, 16),
    capacity=st.integers(1, 16),
)
def test_n_settles_and_does_not_flap(
    work: float, merge: float, merge_slot: float, crowding: float, noise_scale: float,
    jitter: float, k: int, initial: int, ceiling: int, capacity: int,
) -> None:  # fmt: skip
    truth = Truth(
        work_s=work, merge_s=merge, merge_slot_s=merge_slot, crowding=crowding,
        noise_scale=noise_scale, jitter=jitter, k=k, num_rows=20_000,
    )  # fmt: skip
    initial = min(initial, ceiling)

    rows, decisions = run(
        truth, epochs=60, workers=lambda epoch: capacity, initial=initial, ceiling=ceiling
    )

    assert all(1 <= n <= ceiling for n in slots(rows))
    assert all(b <= max(a, capacity) and b <= 2 * a for a, b in pairwise(slots(rows)))
    assert all(b >= a // 2 for a, b in pairwise(slots(rows)) if a <= capacity)
    # From 16 to 1 takes four changes; after that, a turn in every 16 epochs at the most.
    assert changes_of(rows[20:]) <= 6
    assert all(decision.why for decision in decisions)


def test_a_pool_that_comes_and_goes_does_not_take_n_with_it() -> None:
    truth = Truth(work_s=0.01, merge_s=0.001, merge_slot_s=0.0)

    rows, _ = run(truth, epochs=40, workers=lambda epoch: 2 if epoch % 2 else 8)

    assert changes_of(rows[10:]) <= 4


def test_workers_that_have_not_told_of_themselves_yet_are_waited_for() -> None:
    truth = Truth()
    rows = [make_epoch(e, slots=4, workers=4, truth=truth) for e in (1, 2, 3)]

    for capacity in (0, 1):
        decision = efficiency(situation(rows, truth, pool=Pool(capacity=capacity)))

        assert decision.parallelism == 4
        assert "at the moment" in decision.why


def test_slots_without_workers_are_given_up() -> None:
    truth = Truth()
    rows = [make_epoch(e, slots=8, workers=2, truth=truth) for e in (1, 2, 3)]

    decision = efficiency(situation(rows, truth, pool=Pool(capacity=2)))

    assert decision.parallelism == 2
    assert "2 workers" in decision.why


def test_n_does_not_grow_beyond_the_workers_the_job_may_have() -> None:
    truth = Truth(work_s=0.01, merge_s=0.0001, merge_slot_s=0.0)
    rows = [make_epoch(e, slots=3, workers=3, truth=truth) for e in (1, 2, 3)]

    decision = efficiency(situation(rows, truth, pool=Pool(capacity=16, max_workers=3)))

    assert decision.parallelism == 3
    assert "--max-workers is 3" in decision.why


@pytest.mark.parametrize(("floor", "ceiling", "expected"), [(8, 12, 8), (1, 2, 2), (3, 3, 3)])
def test_n_is_where_the_user_scales_it_at_once(floor: int, ceiling: int, expected: int) -> None:
    truth = Truth()
    rows = [make_epoch(e, slots=4, workers=4, truth=truth) for e in (1, 2)]

    decision = efficiency(situation(rows, truth, floor=floor, ceiling=ceiling))

    assert decision.parallelism == expected
    assert f"from {floor} to {ceiling}" in decision.why


def test_the_first_epoch_is_as_asked() -> None:
    decision = decide("efficiency", situation([], Truth(), initial=4))

    assert (decision.parallelism, decision.expected_s) == (4, None)


def test_without_timings_n_is_kept() -> None:
    row = replace(make_epoch(1, slots=4, workers=4), phases={})

    assert efficiency(situation([row], Truth())).parallelism == 4


def deadline_decision(each_s: float, *, between_s: float = 1.0, **changes: Any) -> Decision:
    """With four slots so far, and ten epochs to come, each with so much time."""
    truth = Truth(work_s=0.01, merge_s=0.001, merge_slot_s=0.0, overhead_s=0.0)
    rows: list[EpochRow] = []
    for epoch in (2, 3, 4, 5):
        before = rows[-1] if rows else None
        row = make_epoch(epoch, slots=4, workers=16, truth=truth, before=before)
        rows.append(replace(row, ended_at=row.ended_at - 1.0 + between_s))
    # An epoch takes 600 s / N.
    left = 10 * (each_s + between_s)
    return efficiency(situation(rows, truth, epochs_left=10, time_left_s=left, **changes))


@pytest.mark.parametrize(
    ("each_s", "expected"), [(700, 1), (310, 3), (160, 4), (125, 5), (80, 8), (38.5, 16)]
)
def test_a_deadline_takes_the_fewest_slots_that_meet_it(each_s: float, expected: int) -> None:
    decision = deadline_decision(each_s)

    assert decision.parallelism == expected
    assert "for the deadline" in decision.why


def test_a_deadline_is_not_left_to_the_last_second() -> None:
    # Three slots would take 200 s.
    assert deadline_decision(201).parallelism == 4
    assert deadline_decision(225).parallelism == 3


@pytest.mark.parametrize(
    ("each_s", "changes", "expected"),
    [
        (10, {}, 16),
        (10, {"ceiling": 6}, 6),
        (10, {"pool": Pool(capacity=5)}, 5),
        (10, {"pool": Pool(capacity=16, max_workers=7)}, 7),
        (-100, {}, 16),
    ],
    ids=str,
)
def test_a_deadline_that_cannot_be_met_is_said_and_the_fastest_is_taken(
    each_s: float, changes: dict[str, Any], expected: int
) -> None:
    decision = deadline_decision(each_s, **changes)

    assert decision.parallelism == expected
    assert "CANNOT be met" in decision.why
    assert ("has passed" in decision.why) == (each_s < 0)


def test_what_passes_between_epochs_is_no_time_to_train() -> None:
    assert deadline_decision(160, between_s=300).parallelism == 4


def test_the_floor_holds_though_fewer_slots_would_meet_the_deadline() -> None:
    assert deadline_decision(5000, floor=3).parallelism == 3


def replayed(trace: Trace, **changes: Any) -> list[Decision]:
    """What the policy would have decided after each recorded epoch."""
    return [
        decide(
            "efficiency",
            Situation(
                history=trace.rows[max(0, at - WINDOW) : at],
                **(
                    {
                        "initial": 1, "floor": 1, "ceiling": 8, "k": trace.k,
                        "pool": Pool(capacity=trace.workers), "num_rows": trace.num_rows,
                        "batch_size": trace.batch_size,
                    }
                    | changes
                ),
            ),
        )
        for at in range(1, len(trace.rows) + 1)
    ]  # fmt: skip


#: What the policy makes of each recorded job, after its first epoch and after its last.
RECORDED = {
    "lenet-grows-from-1-to-2": (2, 2),
    "lenet-with-4-slots-on-2-workers": (2, 2),
    "lenet-by-efficiency": (2, 2),
    "tiny-is-bound-by-merges": (2, 1),
    "tiny-by-efficiency": (1, 2),
    "four-workers-on-two-cores,-throughput": (2, 2),
    "four-workers-on-two-cores,-efficiency": (2, 2),
}


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_recorded_jobs_are_decided_as_they_were_found_right(trace: Trace) -> None:
    decisions = replayed(trace)

    assert (decisions[0].parallelism, decisions[-1].parallelism) == RECORDED[trace.name]
    assert all(d.expected_s is not None and d.expected_s > 0 for d in decisions)


def test_four_workers_on_two_cores_were_seen_to_be_too_many() -> None:
    trace = next(t for t in TRACES if t.name == "four-workers-on-two-cores,-throughput")

    whys = [decision.why for decision in replayed(trace)]

    assert "slot 4 adds" in whys[-1]
    assert "down" in whys[-1]


def test_shares_are_those_of_goodput() -> None:
    truth = Truth(work_s=0.01, merge_s=0.0, merge_slot_s=0.0, overhead_s=0.0, jitter=0.0)
    model = EpochModel.fit(
        [make_epoch(2, slots=2, workers=8, truth=truth)],
        num_rows=truth.num_rows, batch_size=truth.batch_size, k=truth.k,
    )  # fmt: skip
    assert model is not None
    endless, critical = (
        Goodput(model=model, noise_scale=phi, batch_size=32, workers=64) for phi in (1e12, 320.0)
    )

    assert endless.adds(8) == pytest.approx(1.0)
    # At the critical batch size, N B = phi, a slot adds half of its share: phi / (phi + N B).
    assert critical.adds(10) == pytest.approx(0.5, abs=0.03)
    assert critical.adds(1) == 1.0
