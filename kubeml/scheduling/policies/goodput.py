"""What a sample is worth with N slots: the statistical half of goodput. Pure.

Goodput is throughput times statistical efficiency, the progress per sample relative to that with
another batch: Pollux (A. Qiao et al., OSDI 2021, arXiv:2008.12260, section 3.1). For batches of m
samples it is

    E(m) = (phi + m0) / (phi + m)

with phi the gradient noise scale, tr(Sigma) / |G|^2 (S. McCandlish et al., "An Empirical Model of
Large-Batch Training", 2018, arXiv:1812.06162). A merge of N slots averages K steps of B samples of
each: as many samples per step as a batch of m = N B. That local SGD converges like SGD with such
a batch, as long as merges are frequent enough: S. Stich, "Local SGD Converges Fast and
Communicates Little", ICLR 2019, arXiv:1805.09767.

A history has no gradients, but losses. Progress per epoch is p = ln(loss before / loss after), and
falls in the course of training whatever N is; where N changed, what it changed besides tells phi:

    ln p_e = alpha + beta e + ln E(B N_e) + noise

alpha is free, beta (per epoch, never positive) and ln phi are normal beforehand: beta around 0, and
ln phi around ``PRIOR_NOISE_SCALE``. phi is the most probable one (maximum a posteriori, on a grid).
While N never changed, the losses fit any phi equally well, and phi is the prior's. That is a guess,
and a low one on purpose: it lets N grow to a batch of about a thousand samples until losses say
more. The learning rate is taken as it is, since kubeml does not change it with N: if a larger N
needs a larger one to be worth anything, the losses show it, and phi comes out low.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from kubeml.jobs.results import EpochRow

#: phi before the losses say more, in samples.
PRIOR_NOISE_SCALE = 1024.0
#: The prior's standard deviation, of ln phi: a factor of four.
_PRIOR_SPREAD = log(4)
#: That of beta: progress may fall by a tenth each epoch without anybody wondering.
_TREND = 0.1
#: That of the noise: what is measured of an epoch's progress is this uncertain.
_NOISE = 0.4
#: Progress that cannot be seen is taken for this part of what is usual.
_LEAST = 0.05

#: Of ln phi, from 4 samples to four million.
_GRID: NDArray[np.float64] = np.linspace(log(4), log(4e6), 140)


def efficiency(batch: float, noise_scale: float) -> float:
    """What a sample is worth in batches of so many, relative to a batch of none: E(m), m0 = 0."""
    return noise_scale / (noise_scale + batch)


def noise_scale(history: Sequence[EpochRow], *, batch_size: int) -> float:
    """Estimate phi, in samples, from how the loss fell with each N.

    Args:
        history: Rows of epochs, oldest first, without a gap.
        batch_size: B.
    """
    points = _progress(history, batch_size)
    if len({batch for _, batch, _ in points}) < 2:
        return PRIOR_NOISE_SCALE
    epochs, batches, progress = np.array(points).T
    scales = np.exp(_GRID)[:, None]
    rest = progress - np.log(scales / (scales + batches))
    rest = rest - rest.mean(axis=1, keepdims=True)
    since = epochs - epochs.mean()
    # The most probable trend with each phi; training slows down by itself, and gets no quicker.
    trend = np.minimum(0.0, rest @ since / (since @ since + (_NOISE / _TREND) ** 2))[:, None]
    misfit = ((rest - trend * since) ** 2).sum(axis=1) / _NOISE**2
    surprise = (trend[:, 0] / _TREND) ** 2
    surprise += ((_GRID - log(PRIOR_NOISE_SCALE)) / _PRIOR_SPREAD) ** 2
    return exp(float(_GRID[np.argmin(misfit + surprise)]))


def _progress(history: Sequence[EpochRow], batch_size: int) -> list[tuple[float, float, float]]:
    """(epoch, batch, ln p) wherever two epochs in a row have a loss.

    The loss of an epoch is the mean over it, so what passed between two was trained half with the
    one's N and half with the other's. What passed from the first to the second is left out: weights
    at random get better quickly, with any N.
    """
    raw = [
        (after.epoch, (before.parallelism + after.parallelism) / 2, before.train_loss, loss)
        for before, after in pairwise(history)
        if before.epoch > 1
        and before.train_loss
        and before.train_loss > 0
        and (loss := after.train_loss) is not None
        and loss > 0
    ]
    steps = [log(before / after) for _, _, before, after in raw]
    falls = sorted(step for step in steps if step > 0)
    if not falls:
        return []
    least = _LEAST * falls[len(falls) // 2]
    return [
        (epoch, slots * batch_size, log(max(step, least)))
        for (epoch, slots, _, _), step in zip(raw, steps, strict=True)
    ]
