"""Writes digits.json: five test digits as a JSON list, to be predicted.

The digits to train on ship with the repository: 10,000 of MNIST, and 2,000 to test with.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

with np.load(HERE / "../../data/mnist_subset.npz") as digits:
    (HERE / "digits.json").write_text(json.dumps(digits["x_test"][:5].tolist()))
    print("digits.json: the digits", *digits["y_test"][:5])
