"""Writes houses.npz, function/scales.json and offers.json: flats, and what they were sold for.

The prices are made up: they follow a formula that no straight line fits, and scatter by 4 %.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
COLUMNS = ["area_m2", "rooms", "year", "distance_km", "has_garden"]
NUM_TRAIN, NUM_TEST = 4000, 1000


def make(rng, count):
    """So many flats (one a row, columns as in COLUMNS) and their prices in thousands."""
    area = rng.uniform(25, 180, count)
    rooms = np.clip(np.round(area / 28 + rng.normal(0, 0.7, count)), 1, 8)
    year = np.round(rng.uniform(1900, 2025, count))
    distance = rng.uniform(0, 30, count)
    garden = (rng.random(count) < 0.3).astype(float)
    per_m2 = 1.5 + 4.5 * np.exp(-distance / 8) + 0.01 * np.abs(year - 1960)
    price = area * per_m2 * (1 + 0.15 * garden) + 12 * rooms
    price *= np.exp(rng.normal(0, 0.04, count))
    features = np.stack([area, rooms, year, distance, garden], axis=1)
    return features.astype(np.float32), price.astype(np.float32)


rng = np.random.default_rng(1)
x_train, y_train = make(rng, NUM_TRAIN)
x_test, y_test = make(rng, NUM_TEST)
np.savez(HERE / "houses.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)

# What the network needs to bring all columns to one scale. Only training rows may be looked at.
scales = {
    "columns": COLUMNS,
    "mean": x_train.mean(0).tolist(),
    "std": x_train.std(0).tolist(),
    "price_mean": float(y_train.mean()),
    "price_std": float(y_train.std()),
}
(HERE / "function" / "scales.json").write_text(json.dumps(scales, indent=2) + "\n")

offers = [
    {"area_m2": 80, "rooms": 3, "year": 1975, "distance_km": 2.5, "has_garden": 0},
    {"area_m2": 80, "rooms": 3, "year": 1975, "distance_km": 25, "has_garden": 0},
    {"area_m2": 150, "rooms": 6, "year": 2015, "distance_km": 12, "has_garden": 1},
]
(HERE / "offers.json").write_text(json.dumps(offers, indent=2) + "\n")
print(f"houses.npz: {NUM_TRAIN} flats to train on, {NUM_TEST} to test with")
