"""``python -m kubeml.runtime.check DIR ENTRY DEVICE``: try whether a function works at all.

``kubeml function create`` starts it as a process of its own, since it runs the user's code. Its
last line of output is one JSON object: the network's layout if all is well, else where, fault,
traceback and hint.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from brokers.shards.cache import ShardCache
from brokers.shards.reader import ShardReader
from kubeml.catalog.datasets import Datasets
from kubeml.errors import DatasetNotFound, InvalidFunction, KubemlError, UserCodeError
from kubeml.runtime.loading import load_function
from kubeml.sdk.context import JobArgs
from kubeml.weights.layout import Layout

#: Rows of the trial step: enough for a BatchNorm, and few enough to take no time.
_ROWS = 4


def main(arguments: list[str]) -> int:
    """Check one unpacked bundle and print the verdict; see the module."""
    # What the user's code prints must not mix with the verdict, which our parent reads.
    verdict_out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    verdict: dict[str, Any] = {}
    try:
        layout = check(Path(arguments[0]), arguments[1], arguments[2], Settings.load())
        verdict["layout"] = layout.to_wire()
    except (InvalidFunction, UserCodeError) as err:
        verdict = {
            "where": err.where,
            "fault": err.fault,
            "traceback": err.user_traceback,
            "hint": err.hint,
        }
    except KubemlError as err:
        verdict = {"where": arguments[1], "fault": str(err), "traceback": "", "hint": err.hint}
    with verdict_out:
        verdict_out.write(json.dumps(verdict) + "\n")
    return 1 if verdict.get("fault") else 0


def check(code: Path, entry: str, device: str, settings: Settings) -> Layout:
    """Build the model, make a step on a few rows if its dataset exists, and return its layout.

    Raises:
        InvalidFunction, UserCodeError: The function does not work.
        LayoutMismatch: The network gets new layers while it trains.
    """
    runtime = load_function(
        code,
        entry=entry,
        args=JobArgs(job_id="check", batch_size=_ROWS),
        reader=None,
        device="cpu",
        logger=logging.getLogger("kubeml.function"),
        init_seed=0,
    )
    if runtime.wants_gpu and device != "cpu":
        _require_gpu(entry)
    runtime.init()
    rows = _few_rows(runtime.dataset_name, settings)
    layout = runtime.layout
    if rows is None:
        return layout
    runtime.use(rows)
    numbers = np.arange(rows.count)
    runtime.train_round(
        epoch=1,
        slot=0,
        num_slots=1,
        lr=0.01,
        batch_size=_ROWS,
        rows=numbers,
        seed=0,
        optimizer_state_policy="reset",
        optimizer_state=None,
        on_batch=_ignore,
    )
    runtime.validate(
        epoch=1, slot=0, num_slots=1, batch_size=_ROWS, rows=numbers, seed=0, on_batch=_ignore
    )
    return layout


class _FewRows:
    """A handful of training rows that stand for both splits."""

    def __init__(self, data: NDArray[Any], labels: NDArray[Any]) -> None:
        self.count = len(data)
        self._data, self._labels = data, labels

    def gather(self, _split: str, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._data[rows], self._labels[rows]


def _few_rows(name: str, settings: Settings) -> _FewRows | None:
    objects = ObjectStore(settings)
    try:
        manifest = Datasets(objects).show(name)
    except DatasetNotFound:
        return None
    cache = ShardCache(settings.cache_dir / "shards", settings.cache_bytes)
    reader = ShardReader(manifest, objects=objects, cache=cache)
    count = min(_ROWS, manifest.train.num_rows)
    data, labels = reader.gather("train", np.arange(count))
    return _FewRows(data, labels)


def _require_gpu(entry: str) -> None:
    if not torch.cuda.is_available():
        raise InvalidFunction(
            where=entry,
            fault="it says gpu=True, and there is no GPU here",
            hint="check it where there is one, or say --device cpu",
        )


def _ignore(_index: int) -> None:
    """Do nothing: a check's batches need not be reported."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
