"""What a sample is worth with N slots: by the prior until losses say more, then by the losses."""

from dataclasses import replace

import pytest

from kubeml.jobs.results import EpochRow
from kubeml.scheduling.policies.goodput import PRIOR_NOISE_SCALE, efficiency, noise_scale
from tests.unit.scheduling.epochs import Truth, make_epoch


def trained(slots: list[int], truth: Truth) -> list[EpochRow]:
    rows: list[EpochRow] = []
    for epoch, n in enumerate(slots, start=1):
        before = rows[-1] if rows else None
        rows.append(make_epoch(epoch, slots=n, workers=16, truth=truth, before=before))
    return rows


def test_the_prior_stands_while_n_never_changed() -> None:
    rows = trained([4] * 12, Truth(noise_scale=64.0))

    assert noise_scale(rows, batch_size=32) == PRIOR_NOISE_SCALE
    assert noise_scale([], batch_size=32) == PRIOR_NOISE_SCALE


@pytest.mark.parametrize("truth", [64.0, 16_384.0])
def test_losses_with_several_n_move_the_estimate_towards_the_truth(truth: float) -> None:
    rows = trained([1, 1, 1, 2, 2, 2, 4, 4, 4, 16, 16, 16, 2, 2, 2], Truth(noise_scale=truth))

    estimate = noise_scale(rows, batch_size=32)

    assert (
        estimate / PRIOR_NOISE_SCALE < 0.5 if truth < 1000 else estimate > PRIOR_NOISE_SCALE * 1.5
    )


def test_training_that_slows_down_by_itself_is_not_held_against_n() -> None:
    # Loss falls ever more slowly, and N grows meanwhile: without a trend phi would come out tiny.
    rows = trained([1, 1, 2, 2, 4, 4, 8, 8, 8, 8], Truth(noise_scale=1e6, batch_size=8))

    assert noise_scale(rows, batch_size=8) > PRIOR_NOISE_SCALE / 2


@pytest.mark.parametrize("loss", [None, 0.0, -1.0, 2.3])
def test_epochs_without_a_fall_of_the_loss_break_nothing(loss: float | None) -> None:
    rows = trained([1, 1, 2, 2, 4, 4], Truth())
    odd = [replace(row, train_loss=loss) if i % 2 else row for i, row in enumerate(rows)]

    assert 4 <= noise_scale(odd, batch_size=32) <= 5e6
    flat = [replace(row, train_loss=loss) for row in rows]
    assert noise_scale(flat, batch_size=32) == PRIOR_NOISE_SCALE


def test_half_of_a_sample_is_left_at_the_critical_batch_size() -> None:
    assert efficiency(1000.0, 1000.0) == 0.5
    assert efficiency(1.0, 1e9) == pytest.approx(1.0)
