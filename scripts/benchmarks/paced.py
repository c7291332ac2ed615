"""Work whose time is known: batches that sleep, on points that are quickly made."""

import numpy as np

from kubeml.client.client import Client
from scripts.benchmarks import pool

FUNCTION, DATASET = "paced", "points"

#: Rows of an epoch, seconds of a step: an epoch with batch 16 is 3 s of a worker's time.
ROWS, STEP_S = 2400, 0.02

#: A worker of this name takes so much longer for a step.
SLOW_WORKER, SLOW_TIMES = "slow", 5


def put(client: Client) -> None:
    """The dataset and the function."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1.5, (3, 8))
    labels = rng.integers(0, 3, ROWS + 300)
    points = (centres[labels] + rng.normal(0, 0.5, (len(labels), 8))).astype(np.float32)
    client.datasets.create(
        DATASET, train_data=points[:ROWS], train_labels=labels[:ROWS],
        test_data=points[ROWS:], test_labels=labels[ROWS:],
    )  # fmt: skip
    constants = f"STEP_S, SLOW_WORKER, SLOW_TIMES = {STEP_S}, {SLOW_WORKER!r}, {SLOW_TIMES}\n"
    pool.put_function(client, FUNCTION, "paced", constants=constants)
