"""``KubeModel``: a network and how to train it, written as for one machine."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import nn

from kubeml.errors import InvalidFunction
from kubeml.sdk.context import FunctionArgs, current
from kubeml.sdk.dataset import KubeDataset

_silent = logging.getLogger("kubeml.function")


class KubeModel:
    """Subclass it; define ``configure_optimizers``, ``train``, ``validate``, ``init``, ``infer``.

    kubeml moves the network and the batches to the device, switches between ``train()`` and
    ``eval()``, turns gradients off for validation and inference, and cuts the data into batches.

    Args:
        network: The torch module to train.
        dataset: The data to train it on.
        gpu: Whether it needs a GPU. A job with ``--device cpu`` runs it on the CPU all the same.

    Attributes:
        optimizer: The optimizer that ``configure_optimizers`` returned.
        lr: Learning rate of the job.
        batch_size: Number of rows of the batch in hand (the last one may be shorter).
        epoch: The epoch under way, from 1.
        device: The torch device.
        logger: For log lines that ``kubeml logs`` shows.
        args: KubeML's arguments object: ``lr``, ``batch_size``, ``epoch``.
        task: ``init``, ``train``, ``val`` or ``infer``.
    """

    def __init__(self, network: nn.Module, dataset: KubeDataset, gpu: bool = False) -> None:  # noqa: FBT001, FBT002 - KubeML's signature
        self._network = network
        self._dataset = dataset
        self.platform = "gpu" if gpu else "cpu"
        self.device = torch.device("cpu")
        self.args: FunctionArgs | None = None
        self.logger: logging.Logger = _silent
        self.lr: float = 0.0
        self.batch_size: int = 0
        self.task: str = ""
        self.optimizer: Any = None
        self.epoch: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network: ``output = self(x)``."""
        return self._network(*args, **kwargs)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The network's parameters, for optimizers."""
        return self._network.parameters()

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """Apply ``fn`` to every module of the network, as ``nn.Module.apply`` does."""
        self._network.apply(fn)
        return self

    def start(self) -> Self:
        """Hand the model to kubeml; return its result from ``main``.

        Raises:
            InvalidFunction: The network or the dataset is not one.
            Conflict: The file was run by itself rather than by kubeml.
        """
        context = current()
        if not isinstance(self._network, nn.Module):
            raise InvalidFunction(
                where=type(self).__name__,
                fault=f"the network is a {type(self._network).__name__}, not an nn.Module",
            )
        if not isinstance(self._dataset, KubeDataset):
            raise InvalidFunction(
                where=type(self).__name__,
                fault=f"the dataset is a {type(self._dataset).__name__}, not a KubeDataset",
            )
        self.device = torch.device(context.device)
        self.logger = context.logger
        self.args = FunctionArgs(context.args)
        self.lr = context.args.lr
        self.batch_size = context.args.batch_size
        context.started = self
        return self

    def configure_optimizers(self) -> Any:
        """Return the optimizer of ``self.parameters()``; may use ``self.lr``, ``self.epoch``."""
        raise NotImplementedError("define configure_optimizers()")

    def init(self, model: nn.Module) -> None:
        """Initialise the weights; both ``init(self)`` and ``init(self, model)`` work."""

    def train(self, batch: Any, batch_index: int) -> float:
        """Train on one batch (already on the device) and return its mean loss."""
        raise NotImplementedError("define train()")

    def validate(self, batch: Any, batch_index: int) -> tuple[float, float]:
        """Return (accuracy, loss) of one batch: means over its rows."""
        raise NotImplementedError("define validate()")

    def infer(self, data: list[Any]) -> Any:
        """Return predictions for data points: a tensor, an array, or a list."""
        raise NotImplementedError("define infer()")
