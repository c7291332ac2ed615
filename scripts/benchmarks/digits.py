"""The data: all of MNIST from a file, or the digits that ship with kubeml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUBSET = Path(__file__).parents[1] / "data" / "mnist_subset.npz"

#: Rows of the full training set.
FULL_ROWS = 60_000


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images (rows, 28, 28) of uint8 and labels (rows,), and where they come from."""

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    source: str

    @property
    def is_full(self) -> bool:
        """Whether this is MNIST itself: accuracies mean what people expect."""
        return self.source.startswith("MNIST")

    def save(self, folder: Path) -> Path:
        """Write them where contestants in other processes find them."""
        path = folder / "digits.npz"
        np.savez(
            path, x_train=self.x_train, y_train=self.y_train,
            x_test=self.x_test, y_test=self.y_test,
        )  # fmt: skip
        return path


def load(path: Path | None, *, rows: int | None = None) -> Digits:
    """Read the digits.

    Args:
        path: An .npz of ``x_train``, ``y_train``, ``x_test``, ``y_test``; else the subset.
        rows: For throughput alone: so many training rows, repeated if there are fewer.
    """
    with np.load(path or SUBSET, allow_pickle=False) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
        x_test, y_test = arrays["x_test"], arrays["y_test"]
    source = f"MNIST, {len(x):,} rows" if path else f"{len(x):,} MNIST digits that ship with kubeml"
    if rows is not None and rows != len(x):
        source += f", {'repeated' if rows > len(x) else 'cut'} to {rows:,} rows (throughput alone)"
        where = np.resize(np.arange(len(x)), rows)
        x, y = x[where], y[where]
    return Digits(x_train=x, y_train=y, x_test=x_test, y_test=y_test, source=source)
