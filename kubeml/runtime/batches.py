"""Makes batches of rows, on the device, for ``FunctionRuntime``.

A batch is made in one go if the dataset allows it, else sample by sample, in a thread ahead.
"""

import queue
import random
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from kubeml.sdk.dataset import KubeDataset

_PREFETCHED = 2


def batches(
    dataset: KubeDataset, batch_size: int, device: torch.device, *, prefetch: bool | None = None
) -> Generator[tuple[int, Any], None, None]:
    """Yield (number of rows, batch on the device), in row order; the last batch may be short.

    A dataset with its own ``__getitem__`` is read sample by sample. While a GPU computes, a thread
    may build the next batches, but only if building the first batch used no random numbers.
    Otherwise batches are built in step with the training, since both draw from the same global
    generators, and a repetition must draw the same.

    Args:
        dataset: The rows in hand.
        batch_size: Rows per batch.
        device: Where the batches go.
        prefetch: Whether to use that thread. By default it is not used on a CPU, where it takes
            the time that it saves (measured on LeNet: the same speed for 20 % more CPU).
    """
    spans = [
        (low, min(low + batch_size, len(dataset))) for low in range(0, len(dataset), batch_size)
    ]
    build = _builder(dataset)
    if device.type == "cuda":
        # Memory is pinned in the thread that builds the batch: training need not wait for it.
        build = _pinning(build)
    if not spans:
        return
    wanted = device.type != "cpu" if prefetch is None else prefetch
    may_prefetch = wanted and _is_per_sample(dataset)
    before = _random_state() if may_prefetch else ()
    first = build(*spans[0])
    may_prefetch = may_prefetch and _random_state() == before
    yield spans[0][1] - spans[0][0], to_device(first, device)
    rest: Iterator[Any] = (build(*span) for span in spans[1:])
    if may_prefetch and len(spans) > 2:
        rest = _prefetched(rest)
    for (low, high), batch in zip(spans[1:], rest, strict=True):
        yield high - low, to_device(batch, device)


def to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor on the device; tuples, lists and dicts are kept."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    return _mapped(batch, lambda part: to_device(part, device))


def pinned(batch: Any) -> Any:
    """Return the batch with every tensor in page-locked memory, from which a GPU copies by itself.

    From other memory a ``non_blocking`` copy would block its caller. PyTorch reuses a block of
    page-locked memory only when the copies from it are done, so it may be dropped at any time.
    """
    if isinstance(batch, torch.Tensor):
        is_plain = batch.device.type == "cpu" and batch.layout == torch.strided
        return batch.pin_memory() if is_plain else batch
    return _mapped(batch, pinned)


def _mapped(batch: Any, change: Callable[[Any], Any]) -> Any:
    """Return the batch with its parts changed; tuples, lists and dicts are kept."""
    if isinstance(batch, dict):
        return {key: change(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(change(part) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(change(part) for part in batch)
    return batch


def _is_per_sample(dataset: KubeDataset) -> bool:
    if hasattr(dataset, "__getitems__"):
        return False
    return type(dataset).__getitem__ is not KubeDataset.__getitem__


def _builder(dataset: KubeDataset) -> Callable[[int, int], Any]:
    getitems = getattr(dataset, "__getitems__", None)
    if getitems is not None:

        def whole(low: int, high: int) -> Any:
            # By PyTorch's convention it returns a list of samples; a ready batch is taken as is.
            fetched = getitems(list(range(low, high)))
            return default_collate(fetched) if isinstance(fetched, list) else fetched

        return whole
    if _is_per_sample(dataset):
        return lambda low, high: default_collate([dataset[i] for i in range(low, high)])
    return lambda low, high: [
        torch.from_numpy(dataset.data[low:high]),
        torch.from_numpy(dataset.labels[low:high]),
    ]


def _pinning(build: Callable[[int, int], Any]) -> Callable[[int, int], Any]:
    return lambda low, high: pinned(build(low, high))


def _random_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return (
        torch.get_rng_state().numpy().tobytes(),
        name,
        np.asarray(keys).tobytes(),
        tuple(rest),
        random.getstate(),
    )


def _prefetched(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the same items, made ahead by a thread; an error is raised in its item's place."""
    maker = _Prefetcher(items)
    maker.start()
    try:
        yield from maker
    finally:
        maker.stop()


class _Prefetcher(threading.Thread):
    """Fills a short queue with ("item", …), ("error", …) or ("end", None)."""

    def __init__(self, items: Iterator[Any]) -> None:
        super().__init__(name="kubeml-prefetch", daemon=True)
        self._items = items
        self._ready: queue.Queue[tuple[str, Any]] = queue.Queue(_PREFETCHED)
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        while True:
            kind, value = self._ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value

    def stop(self) -> None:
        """End the thread, and drop what it made."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        try:
            for item in self._items:
                if not self._put("item", item):
                    return
            self._put("end", None)
        except BaseException as err:  # noqa: BLE001 - raised again in the training thread
            self._put("error", err)

    def _put(self, kind: str, value: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
