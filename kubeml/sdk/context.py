"""What a user's ``main()`` finds around it: its job, data and device.

The runtime sets it; ``KubeDataset`` and ``KubeModel`` read it.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kubeml.errors import Conflict

logger = logging.getLogger(__name__)

Split = Literal["train", "test"]

#: These stand for ``KubeDataset`` and ``KubeModel``, which import this module.
DatasetT = TypeVar("DatasetT")
ModelT = TypeVar("ModelT")


class RowSource(Protocol):
    """What gives rows: the dataset's shards, or arrays in memory."""

    def gather(self, split: Split, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the features and labels of these rows, in the order of ``rows``."""
        ...


@dataclass(frozen=True, kw_only=True)
class JobArgs:
    """A job's hyper-parameters, as the function sees them.

    Attributes:
        job_id: The job.
        lr: Learning rate.
        batch_size: Rows per full batch.
        num_slots: N at the start of the job.
        k: Steps between two merges; -1: one merge per epoch.
    """

    job_id: str = ""
    lr: float = 0.01
    batch_size: int = 64
    num_slots: int = 1
    k: int = -1


class FunctionArgs:
    """``self.args`` of a ``KubeModel``, with the names that the original KubeML gave.

    Attributes:
        lr, batch_size, epoch: The same as on the model itself.
    """

    def __init__(self, args: JobArgs) -> None:
        self._job_id = args.job_id
        self._N = args.num_slots
        self._K = args.k
        self._task = ""
        self._func_id = 0
        self.lr = args.lr
        self.batch_size = args.batch_size
        self.epoch = 0


@dataclass(kw_only=True)
class FunctionContext(Generic[DatasetT, ModelT]):
    """What is set while ``main()`` runs, and read by ``KubeDataset`` and ``KubeModel.start``.

    Attributes:
        args: The job's hyper-parameters.
        reader: What gives rows; None when a function is only checked.
        device: ``cpu`` or ``cuda``.
        logger: Becomes ``self.logger``.
        datasets: The datasets that ``main()`` made.
        started: The model whose ``start()`` was called.
    """

    args: JobArgs
    reader: RowSource | None
    device: str
    logger: logging.Logger
    datasets: list[DatasetT] = field(default_factory=list)
    started: ModelT | None = None


_current: ContextVar[FunctionContext[Any, Any] | None] = ContextVar("kubeml_function", default=None)


@contextmanager
def running(context: FunctionContext[Any, Any]) -> Iterator[None]:
    """Make ``context`` the one that user code finds, for the time of a ``with`` block."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> FunctionContext[Any, Any]:
    """Return the context of the ``main()`` that is running.

    Raises:
        Conflict: The code was not started by kubeml.
    """
    context = _current.get()
    if context is None:
        raise Conflict(
            what="a KubeModel can only be started by kubeml",
            hint="create a function from this file (kubeml function create) and train it",
        )
    return context


def current_or_none() -> FunctionContext[Any, Any] | None:
    """Return the context; None when the user's file is run or imported by itself."""
    return _current.get()
