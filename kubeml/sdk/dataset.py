"""``KubeDataset``: the rows a slot trains on, as a torch dataset."""

from typing import Any

import numpy as np
import torch.utils.data
from numpy.typing import NDArray

from kubeml.sdk.context import current_or_none


class KubeDataset(torch.utils.data.Dataset[Any]):
    """Subclass it, name the dataset, and (if you need to) say how a row becomes a sample.

    ``data`` and ``labels`` are numpy arrays with the rows in hand. While training, these are the
    rows of a slot's round; while validating, a part of the test set. If you write a
    ``__getitem__`` and no ``__getitems__``, batches are built sample by sample, else in one go.

    Args:
        dataset: Name of the dataset, as given to ``kubeml dataset create``. A job may name
            another one (``kubeml train -d``), which then takes its place.

    Attributes:
        dataset: That name.
        data: Features, (rows, *feature shape).
        labels: Labels, (rows, *label shape).
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self.data: NDArray[Any] = np.empty((0,))
        self.labels: NDArray[Any] = np.empty((0,))
        self._is_training = True
        context = current_or_none()
        if context is not None:
            context.datasets.append(self)

    def is_training(self) -> bool:
        """Whether the rows in hand are for training rather than validation; for augmentation."""
        return self._is_training

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index], self.labels[index]

    def _load(self, data: NDArray[Any], labels: NDArray[Any], *, is_training: bool) -> None:
        self.data, self.labels, self._is_training = data, labels, is_training
