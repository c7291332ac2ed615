"""Running a user's function: loaded once per process, job and version, and kept warm."""

import copy
import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kubeml import optimizer_state as state_codec
from kubeml.batches import batches
from kubeml.context import FunctionContext, JobArgs, RowSource, Split, running
from kubeml.errors import Conflict, InvalidFunction, UserCodeError
from kubeml.isolated_import import IsolatedBundle
from kubeml.layout import Layout
from kubeml.model import KubeModel
from kubeml.network_blob import NetworkBlob
from kubeml.user_code import seed_everything, user_code

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What a slot made of its round.

    Attributes:
        contribution: Contribution blob.
        optimizer_state: Encoded inner optimizer state; policy ``carry`` alone.
        num_samples, num_steps: Rows trained, optimizer steps made.
        loss: Mean of what ``train`` returned, by samples.
        data_s, compute_s: Time for building batches, and in the user's ``train``.
    """

    contribution: bytearray
    optimizer_state: bytes | None
    num_samples: int
    num_steps: int
    loss: float
    data_s: float
    compute_s: float


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """Sample-weighted means over the rows of a validation slot."""

    num_samples: int
    accuracy: float
    loss: float


@dataclass
class _SlotOptimizer:
    """The optimizer of one slot in one epoch, with the hyper-parameters it began with."""

    epoch: int
    optimizer: torch.optim.Optimizer
    groups: list[dict[str, Any]]


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
        self._optimizers: dict[int, _SlotOptimizer] = {}

    @classmethod
    def load(
        cls,
        code_dir: Path,
        *,
        entry: str,
        args: JobArgs,
        reader: RowSource | None,
        device: str,
        logger: logging.Logger,
        init_seed: int,
    ) -> Self:
        """Import the bundle in isolation and run its ``main()`` once.

        Args:
            code_dir: The unpacked bundle.
            entry: Its file that defines ``main``.
            args: The job's hyper-parameters.
            reader: Where rows come from; None to build the model alone.
            device: ``cpu`` or ``cuda``.
            logger: Becomes ``self.logger``.
            init_seed: Seeds the generators before ``main()``, so that weights which the
                constructors draw are the same in every process.

        Raises:
            InvalidFunction: There is no ``main``, or it does not start a ``KubeModel``.
            UserCodeError: The user's code raised.
            Conflict: A GPU is asked for, and there is none.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise Conflict(what="this worker has no GPU", hint="train with --device cpu")
        context = FunctionContext(args=args, reader=reader, device=device, logger=logger)
        seed_everything(init_seed)
        with running(context):
            bundle = IsolatedBundle(code_dir)
            with user_code(f"importing {entry}"):
                module = bundle.module(entry.removesuffix(".py"))
            with user_code(f"main() in {entry}"):
                returned = module.main()
        model = context.started
        if model is None or returned is not model:
            raise InvalidFunction(
                where=entry,
                fault="main() does not return start() of a KubeModel",
                hint="end it with: return MyModel(network, dataset).start()",
            )
        return cls(bundle, model, reader, device)

    @property
    def wants_gpu(self) -> bool:
        """Whether the user wrote ``gpu=True``."""
        return self._model.platform == "gpu"

    @property
    def dataset_name(self) -> str:
        """The dataset that the user's ``KubeDataset`` names."""
        return self._model._dataset.dataset  # noqa: SLF001 - KubeML's name

    def use(self, reader: RowSource) -> None:
        """Read rows from here from now on."""
        self._reader = reader

    def close(self) -> None:
        """Forget the bundle's modules."""
        self._bundle.close()

    @property
    def layout(self) -> Layout:
        """The network's layout."""
        return self._blob.layout

    def init(self) -> None:
        """Run the user's ``init``, with or without the model argument.

        Raises:
            UserCodeError: It raised.
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
        # init() may freeze or tie tensors: the layout is that of the network it leaves.
        self._blob = NetworkBlob(self._network)

    def weights(self) -> bytearray:
        """A new weights blob of the network as it is."""
        return self._blob.weights()

    def frozen(self) -> bytearray:
        """A new blob of its frozen tensors."""
        return self._blob.frozen()

    def load_weights(self, weights: memoryview, frozen: memoryview | None = None) -> None:
        """Copy blobs into the network, in place.

        Raises:
            LayoutMismatch: They do not fit.
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
    ) -> RoundResult:
        """Train the network, as it is, on a slot's rows of one round.

        Args:
            epoch: From 1; becomes ``self.epoch``.
            slot: Which slot,
            num_slots: of how many.
            lr: Becomes ``self.lr``.
            batch_size: Rows per batch; the last may be shorter.
            rows: Row numbers of the training set, in training order.
            seed: Seeds torch, numpy and random before anything is drawn.
            optimizer_state_policy: ``reset``, ``local`` or ``carry``.
            optimizer_state: For ``carry``: what the slot's last round returned; None at first.
            on_batch: Called after every batch with its index; may raise to abandon the round.

        Raises:
            UserCodeError: The user's code raised.
            LayoutMismatch: The network's tensors changed.
        """
        self._enter("train", epoch=epoch, slot=slot, num_slots=num_slots, lr=lr, size=batch_size)
        self._network.train()
        seed_everything(seed)
        optimizer = self._optimizer(epoch, slot, optimizer_state_policy, optimizer_state)
        self._model.optimizer = optimizer
        dataset = self._load_rows("train", rows)
        total = data_s = compute_s = 0.0
        steps = 0
        mark = time.perf_counter()
        with user_code("train()"):
            for index, (size, batch) in enumerate(batches(dataset, batch_size, self._model.device)):
                started = time.perf_counter()
                data_s += started - mark
                self._model.batch_size = size
                loss = self._model.train(batch, index)
                total += _number(loss, "train()") * size
                steps += 1
                mark = time.perf_counter()
                compute_s += mark - started
                on_batch(index)
        self._blob.require_unchanged()
        return RoundResult(
            contribution=self._blob.contribution(),
            optimizer_state=(
                state_codec.encode(optimizer) if optimizer_state_policy == "carry" else None
            ),
            num_samples=len(rows),
            num_steps=steps,
            loss=total / max(1, len(rows)),
            data_s=data_s,
            compute_s=compute_s,
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
            UserCodeError: The user's code raised, or returned something else than two numbers.
        """
        self._enter("val", epoch=epoch, slot=slot, num_slots=num_slots, size=batch_size)
        self._network.eval()
        seed_everything(seed)
        dataset = self._load_rows("test", rows)
        accuracy = loss = 0.0
        with user_code("validate()"):
            for index, (size, batch) in enumerate(batches(dataset, batch_size, self._model.device)):
                self._model.batch_size = size
                batch_accuracy, batch_loss = self._model.validate(batch, index)
                accuracy += _number(batch_accuracy, "validate()") * size
                loss += _number(batch_loss, "validate()") * size
                on_batch(index)
        count = max(1, len(rows))
        return ValidationResult(num_samples=len(rows), accuracy=accuracy / count, loss=loss / count)

    @torch.no_grad()
    def infer(self, data: list[Any]) -> Any:
        """Run the user's ``infer`` and return JSON-able predictions.

        Raises:
            UserCodeError: It raised, or returned something that is not predictions.
        """
        self._enter("infer", epoch=0)
        self._network.eval()
        with user_code("infer()"):
            predictions = self._model.infer(data)
        if isinstance(predictions, torch.Tensor):
            return predictions.cpu().tolist()
        if isinstance(predictions, np.ndarray | np.generic):
            return predictions.tolist()
        if isinstance(predictions, list | tuple):
            return [p.tolist() if hasattr(p, "tolist") else p for p in predictions]
        raise UserCodeError(
            where="infer()",
            fault=f"returned a {type(predictions).__name__}, expected a tensor, array or list",
        )

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
        """Set what the user's methods may look at."""
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

    def _optimizer(
        self, epoch: int, slot: int, policy: str, state: bytes | None
    ) -> torch.optim.Optimizer:
        """The slot's optimizer: made once per epoch, its hyper-parameters fresh in every round.

        Were they not put back, a learning rate that ``train`` changed would live on in this
        process and not in another that takes the slot over, and the weights would differ.
        """
        kept = self._optimizers.get(slot)
        if kept is None or kept.epoch != epoch:
            old = kept.optimizer if kept else None
            kept = self._optimizers[slot] = self._configure(epoch)
            if policy == "local" and old is not None:
                groups = kept.optimizer.state_dict()["param_groups"]
                kept.optimizer.load_state_dict(
                    {"state": old.state_dict()["state"], "param_groups": groups}
                )
        for group, original in zip(kept.optimizer.param_groups, kept.groups, strict=True):
            group.update(copy.deepcopy(original))
        if policy != "local":
            kept.optimizer.state.clear()
        if policy == "carry" and state is not None:
            state_codec.decode(kept.optimizer, state)
        return kept.optimizer

    def _configure(self, epoch: int) -> _SlotOptimizer:
        with user_code("configure_optimizers()"):
            optimizer = self._model.configure_optimizers()
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserCodeError(
                where="configure_optimizers()",
                fault=f"returned a {type(optimizer).__name__}, expected a torch optimizer",
            )
        groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        return _SlotOptimizer(epoch=epoch, optimizer=optimizer, groups=groups)


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as err:
        raise UserCodeError(
            where=where, fault=f"returned {type(value).__name__}, expected a number"
        ) from err
