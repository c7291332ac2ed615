"""Runs a user's function, which is kept warm once it is loaded.

A worker's participant calls it, for each slot of each round.
"""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kubeml.errors import Conflict
from kubeml.runtime.batch_sums import Tally
from kubeml.runtime.batches import batches
from kubeml.runtime.isolated_import import IsolatedBundle
from kubeml.runtime.network_blob import NetworkBlob
from kubeml.runtime.slot_optimizers import SlotOptimizers
from kubeml.runtime.user_code import as_predictions, seed_everything, user_code
from kubeml.sdk.context import RowSource, Split
from kubeml.sdk.model import KubeModel
from kubeml.weights.layout import Layout
from kubeml.weights.wire_format import FP32, WireFormat

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """The result of training one slot for one round.

    Attributes:
        contribution: The contribution blob.
        optimizer_state: The encoded inner optimizer state; only with the policy ``carry``.
        num_samples, num_steps: Rows trained, and optimizer steps made.
        loss: Mean of what ``train`` returned, weighted by samples.
        rows_s: Time for reading the rows.
        data_s, compute_s: Time for building batches, and time in the user's ``train``.
        pack_s: Time for making the contribution and the optimizer state out of the network.
    """

    contribution: bytearray
    optimizer_state: bytes | None
    num_samples: int
    num_steps: int
    loss: float
    rows_s: float
    data_s: float
    compute_s: float
    pack_s: float


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """Sample-weighted means over the rows of a validation slot."""

    num_samples: int
    accuracy: float
    loss: float


class FunctionRuntime:
    """A user's function, loaded. Not thread-safe."""

    def __init__(
        self, bundle: IsolatedBundle, model: KubeModel, reader: RowSource | None, device: str
    ) -> None:
        self._bundle = bundle
        self._model = model
        self._reader = reader
        self._network = model._network.to(torch.device(device))  # noqa: SLF001 - KubeML's name
        self._blob = NetworkBlob(self._network)
        self._optimizers = SlotOptimizers(model.configure_optimizers)

    @property
    def wants_gpu(self) -> bool:
        """Whether the user wrote ``gpu=True``."""
        return self._model.platform == "gpu"

    @property
    def dataset_name(self) -> str:
        """The dataset that the user's ``KubeDataset`` names."""
        return self._model._dataset.dataset  # noqa: SLF001 - KubeML's name

    def use(self, reader: RowSource) -> None:
        """Read rows from ``reader`` from now on."""
        self._reader = reader

    def close(self) -> None:
        """Forget the bundle's modules."""
        self._bundle.close()

    @property
    def layout(self) -> Layout:
        """Return the network's layout."""
        return self._blob.layout

    def init(self) -> None:
        """Run the user's ``init``, with or without the model argument.

        Raises:
            UserCodeError: The user's ``init`` raised.
        """
        self._enter("init", epoch=0)
        with user_code("init()"):
            takes_model = any(
                p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL}
                for p in inspect.signature(self._model.init).parameters.values()
            )
            if takes_model:
                self._model.init(self._network)
            else:
                self._model.init()  # type: ignore[call-arg]
        # init() may freeze or tie tensors: the layout is that of the network after it.
        self._blob = NetworkBlob(self._network)

    def weights(self) -> bytearray:
        """Return a new weights blob of the network as it is."""
        return self._blob.weights()

    def frozen(self) -> bytearray:
        """Return a new blob of the network's frozen tensors."""
        return self._blob.frozen()

    def load_weights(self, weights: memoryview, frozen: memoryview | None = None) -> None:
        """Copy blobs into the network, in place.

        Raises:
            LayoutMismatch: The blobs do not fit the network.
        """
        self._blob.load(weights, frozen)

    def train_round(
        self,
        *,
        epoch: int,
        slot: int,
        num_slots: int,
        lr: float,
        batch_size: int,
        rows: Rows,
        seed: int,
        optimizer_state_policy: str,
        optimizer_state: bytes | None,
        on_batch: Callable[[int], None],
        wire: WireFormat = FP32,
        base: bytearray | None = None,
        into: bytearray | None = None,
    ) -> RoundResult:
        """Train the network as it is on a slot's rows of one round.

        Args:
            epoch: From 1; becomes ``self.epoch``.
            slot: The slot's number.
            num_slots: How many slots the epoch has.
            lr: Becomes ``self.lr``.
            batch_size: Rows per batch; the last may be shorter.
            rows: Row numbers of the training set, in training order.
            seed: Seeds torch, numpy and random before anything is drawn.
            optimizer_state_policy: ``reset``, ``local`` or ``carry``.
            optimizer_state: For ``carry``: what the slot's last round returned; None at first.
            on_batch: Called after every batch with its index; may raise to abandon the round.
            wire: How the contribution is to travel.
            base: The weights blob that the round begins with; needed only by a wire of differences.
            into: Memory for the contribution, used if it has the right length.

        Raises:
            UserCodeError: The user's code raised.
            LayoutMismatch: The network's tensors are no longer those it had.
        """
        self._enter("train", epoch=epoch, slot=slot, num_slots=num_slots, lr=lr, size=batch_size)
        self._network.train()
        # The function may accumulate gradients: those of another slot's round must not reach it.
        self._network.zero_grad(set_to_none=True)
        started = time.perf_counter()
        dataset = self._load_rows("train", rows)
        rows_s = time.perf_counter() - started
        # Seeded a second time: an optimizer is made only in some rounds, and what it draws must
        # not change what follows.
        seed_everything(seed)
        self._model.optimizer = self._optimizers.begin(
            epoch, slot, optimizer_state_policy, optimizer_state
        )
        seed_everything(seed)
        loss = Tally("train()")
        data_s = compute_s = 0.0
        steps = seen = 0
        mark = time.perf_counter()
        with user_code("train()"):
            for index, (size, batch) in enumerate(batches(dataset, batch_size, self._model.device)):
                started = time.perf_counter()
                data_s += started - mark
                self._model.batch_size = size
                loss.add(self._model.train(batch, index), size)
                steps += 1
                seen += size
                mark = time.perf_counter()
                compute_s += mark - started
                on_batch(index)
            # On an accelerator, this waits for the last batch.
            total = loss.total()
        trained = time.perf_counter()
        compute_s += trained - mark
        self._blob.require_unchanged()
        contribution = self._blob.contribution(wire, base, into=into)
        state = self._optimizers.end(slot, optimizer_state_policy)
        return RoundResult(
            contribution=contribution,
            optimizer_state=state,
            num_samples=len(rows),
            num_steps=steps,
            loss=total / max(1, seen),
            rows_s=rows_s,
            data_s=data_s,
            compute_s=compute_s,
            pack_s=time.perf_counter() - trained,
        )

    @torch.no_grad()
    def validate(
        self,
        *,
        epoch: int,
        slot: int,
        num_slots: int,
        batch_size: int,
        rows: Rows,
        seed: int,
        on_batch: Callable[[int], None],
    ) -> ValidationResult:
        """Run the user's ``validate`` over rows of the test set; see ``train_round``.

        Raises:
            UserCodeError: The user's code raised, or did not return two numbers.
        """
        self._enter("val", epoch=epoch, slot=slot, num_slots=num_slots, size=batch_size)
        self._network.eval()
        seed_everything(seed)
        dataset = self._load_rows("test", rows)
        accuracy, loss = Tally("validate()"), Tally("validate()")
        seen = 0
        with user_code("validate()"):
            for index, (size, batch) in enumerate(batches(dataset, batch_size, self._model.device)):
                self._model.batch_size = size
                batch_accuracy, batch_loss = self._model.validate(batch, index)
                accuracy.add(batch_accuracy, size)
                loss.add(batch_loss, size)
                seen += size
                on_batch(index)
            totals = accuracy.total(), loss.total()
        mean_accuracy, mean_loss = (total / max(1, seen) for total in totals)
        return ValidationResult(num_samples=len(rows), accuracy=mean_accuracy, loss=mean_loss)

    @torch.no_grad()
    def infer(self, data: list[Any]) -> Any:
        """Run the user's ``infer`` and return JSON-able predictions.

        Raises:
            UserCodeError: The user's code raised, or returned something that is not predictions.
        """
        self._enter("infer", epoch=0)
        self._network.eval()
        with user_code("infer()"):
            return as_predictions(self._model.infer(data))

    def _enter(
        self,
        task: str,
        *,
        epoch: int,
        slot: int = 0,
        num_slots: int = 1,
        lr: float | None = None,
        size: int | None = None,
    ) -> None:
        """Set the attributes that the user's methods may read."""
        model, args = self._model, self._model.args
        model.task, model.epoch = task, epoch
        if lr is not None:
            model.lr = lr
        if size is not None:
            model.batch_size = size
        if args is not None:
            args._task, args.epoch = task, epoch  # noqa: SLF001 - KubeML's names
            args._func_id, args._N = slot, num_slots  # noqa: SLF001
            args.lr = model.lr
            args.batch_size = model.batch_size

    def _load_rows(self, split: Split, rows: Rows) -> Any:
        if self._reader is None:
            raise Conflict(what="the function was loaded without data")
        dataset = self._model._dataset  # noqa: SLF001 - KubeML's name
        data, labels = self._reader.gather(split, rows)
        dataset._load(data, labels, is_training=split == "train")  # noqa: SLF001
        return dataset
