"""Loads a user's function: once per process, job and version.

A worker and the check of a new function call it.
"""

import logging
from pathlib import Path

import torch

from kubeml.errors import Conflict, InvalidFunction
from kubeml.runtime.function import FunctionRuntime
from kubeml.runtime.isolated_import import IsolatedBundle
from kubeml.runtime.user_code import seed_everything, user_code
from kubeml.sdk.context import FunctionContext, JobArgs, RowSource, running
from kubeml.sdk.dataset import KubeDataset
from kubeml.sdk.model import KubeModel


def load_function(
    code_dir: Path,
    *,
    entry: str,
    args: JobArgs,
    reader: RowSource | None,
    device: str,
    logger: logging.Logger,
    init_seed: int,
) -> FunctionRuntime:
    """Import the bundle in isolation, and run its ``main()`` once.

    Args:
        code_dir: The unpacked bundle.
        entry: Its file that defines ``main``.
        args: The job's hyper-parameters.
        reader: Where rows come from; None to build the model alone.
        device: ``cpu`` or ``cuda``.
        logger: Becomes ``self.logger``.
        init_seed: Seeds the generators before ``main()``, so that constructors draw the same
            weights in every process.

    Raises:
        InvalidFunction: There is no ``main``, or it does not start a ``KubeModel``.
        UserCodeError: The user's code raised.
        Conflict: A GPU is needed, and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise Conflict(what="this worker has no GPU", hint="train with --device cpu")
    if device == "cuda":
        # CUDA is started first, since seeding would pass over it otherwise.
        torch.cuda.init()  # type: ignore[no-untyped-call]
    context: FunctionContext[KubeDataset, KubeModel] = FunctionContext(
        args=args, reader=reader, device=device, logger=logger
    )
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
    return FunctionRuntime(bundle, model, reader, device)
