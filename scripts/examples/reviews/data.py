"""Writes reviews.npz and remarks.json: short remarks, as numbers of words, and whether they please.

In a remark with "but" the second half decides, and "not" turns a word round: which words there are
does not say enough, their order matters.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "function"))

from vocabulary import BAD, DEGREES, GOOD, THINGS, encode  # noqa: E402 - the function's own module

NUM_TRAIN, NUM_TEST = 1600, 1000


def clause(rng, *, pleases):
    """Such as "the soup was not very good"; it pleases or it does not."""
    negated = rng.random() < 0.35
    words = ["the", rng.choice(THINGS), "was"]
    words += ["not"] if negated else []
    words += [rng.choice(DEGREES)] if rng.random() < 0.4 else []
    return " ".join([*words, rng.choice(GOOD if pleases != negated else BAD)])


def remark(rng):
    """One remark, and 1 if it pleases on the whole."""
    pleases = bool(rng.random() < 0.5)
    form = rng.integers(0, 3)
    text = clause(rng, pleases=pleases)
    if form == 1:
        text = f"{clause(rng, pleases=pleases)} and {text}"
    elif form == 2:
        text = f"{clause(rng, pleases=not pleases)} but {text}"
    return text, int(pleases)


rng = np.random.default_rng(3)
remarks = {}
while len(remarks) < NUM_TRAIN + NUM_TEST:  # each of them once: none to test with is trained on
    text, pleases = remark(rng)
    remarks[text] = pleases
x = np.array([encode(text) for text in remarks], dtype=np.int64)
y = np.array(list(remarks.values()), dtype=np.int64)
np.savez(
    HERE / "reviews.npz",
    x_train=x[:NUM_TRAIN], y_train=y[:NUM_TRAIN], x_test=x[NUM_TRAIN:], y_test=y[NUM_TRAIN:],
)  # fmt: skip

asked = [
    "The soup was cold, but the sommelier was very friendly.",
    "The sommelier was very friendly, but the soup was cold.",
    "The room was not bad.",
    "The view was not very nice.",
]
(HERE / "remarks.json").write_text(json.dumps(asked, indent=2) + "\n")
print(f"reviews.npz: {NUM_TRAIN} remarks to train on, {NUM_TEST} to test with, such as")
for text in list(remarks)[:3]:
    print(f"  {remarks[text]}  {text}")
