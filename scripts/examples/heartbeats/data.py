"""Writes beats.npz and beats.json: single heartbeats, 64 values each, as an electrode shows them.

To train on there are ordinary beats alone. Half of the beats to test with are unusual: a wave is
missing or upside down, the peak is too wide, or there is a second one.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LENGTH = 64
NUM_TRAIN, NUM_TEST = 2000, 600
TIME = np.arange(LENGTH) / LENGTH


def bump(centre, width, height):
    """A smooth wave."""
    return height * np.exp(-(((TIME - centre) / width) ** 2) / 2)


def beat(rng, fault):
    """One beat: a small wave before a sharp peak, a broad one after it, and noise."""
    shift, size = rng.normal(0, 0.015), rng.uniform(0.85, 1.15)
    before, after, width = 0.2, 0.35, 0.02
    if fault == "no wave before":
        before = 0.0
    elif fault == "wave upside down":
        after = -after
    elif fault == "wide peak":
        width = 0.05
    values = bump(0.25 + shift, 0.03, before) + bump(0.7 + shift, 0.05, after)
    values = values + bump(0.45 + shift, width, 1.0) - bump(0.5 + shift, 0.02, 0.25)
    if fault == "second peak":
        values = values + bump(0.88 + shift, 0.02, 0.7)
    return size * values + rng.normal(0, 0.03, LENGTH)


FAULTS = ["no wave before", "wave upside down", "wide peak", "second peak"]
rng = np.random.default_rng(4)
x_train = np.stack([beat(rng, "") for _ in range(NUM_TRAIN)]).astype(np.float32)
is_unusual = np.arange(NUM_TEST) % 2
faults = [str(rng.choice(FAULTS)) if unusual else "" for unusual in is_unusual]
x_test = np.stack([beat(rng, fault) for fault in faults]).astype(np.float32)
np.savez(
    HERE / "beats.npz",
    x_train=x_train, y_train=np.zeros(NUM_TRAIN, np.int64),
    x_test=x_test, y_test=is_unusual.astype(np.int64),
)  # fmt: skip
(HERE / "beats.json").write_text(json.dumps(x_test[:4].tolist()))
print(f"beats.npz: {NUM_TRAIN} beats to train on, {NUM_TEST} to test with")
print("beats.json:", ", ".join(fault or "ordinary" for fault in faults[:4]))
