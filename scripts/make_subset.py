#!/usr/bin/env python3
"""Make the subset of MNIST that ships with the repository from the full set.

    scripts/make_subset.py mnist.npz scripts/data/mnist_subset.npz

The first 10,000 training and the first 2,000 test digits, as 0-255 grey values.
"""

import sys

import numpy as np

TRAIN, TEST = 10_000, 2_000


def main(source: str, target: str) -> None:
    """Write the subset."""
    with np.load(source, allow_pickle=False) as full:
        np.savez_compressed(
            target,
            x_train=full["x_train"][:TRAIN],
            y_train=full["y_train"][:TRAIN],
            x_test=full["x_test"][:TEST],
            y_test=full["y_test"][:TEST],
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
