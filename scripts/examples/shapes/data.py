"""Writes shapes.npz and pictures.json: pictures of five shapes, 24 x 24 grey values.

To train on there are few, each in the middle of its picture, as in a catalogue. In the pictures to
test with a shape lies anywhere, and may be turned over.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NAMES = ["disc", "ring", "square", "cross", "triangle"]
SIZE = 24
NUM_TRAIN, NUM_TEST = 640, 1000


def draw(rng, kind, centre, flip):
    """One picture: a shape of random size and brightness, and noise."""
    radius = rng.uniform(5, 7)
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    y, x = (rows - centre[0]) / radius, (columns - centre[1]) / radius
    if flip:
        y = -y
    distance = np.hypot(x, y)
    inside = {
        "disc": distance < 1,
        "ring": (distance < 1) & (distance > 0.55),
        "square": np.maximum(abs(x), abs(y)) < 0.85,
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
        "triangle": (y < 0.7) & (y > 2 * abs(x) - 1),
    }[NAMES[kind]]
    picture = 40 + inside * rng.uniform(60, 160) + rng.normal(0, 20, (SIZE, SIZE))
    return np.clip(picture, 0, 255).astype(np.uint8)


def make(rng, count, shift, flips):
    """So many pictures with their kinds; each shape at most ``shift`` pixels off the middle."""
    kinds = rng.integers(0, len(NAMES), count)
    pictures = [
        draw(rng, kind, rng.uniform(-shift, shift, 2), flips and rng.random() < 0.5)
        for kind in kinds
    ]
    return np.stack(pictures), kinds


rng = np.random.default_rng(2)
x_train, y_train = make(rng, NUM_TRAIN, shift=0.5, flips=False)
x_test, y_test = make(rng, NUM_TEST, shift=5, flips=True)
np.savez(HERE / "shapes.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
(HERE / "pictures.json").write_text(json.dumps(x_test[:5].tolist()))
print(f"shapes.npz: {NUM_TRAIN} pictures to train on, {NUM_TEST} to test with")
print("pictures.json:", *(NAMES[kind] for kind in y_test[:5]))
