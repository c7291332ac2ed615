"""The border to user code: seeds, errors as the user should see them, values that it returns."""

import os
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kubeml.errors import Abandoned, KubemlError, UserCodeError

_OUR_FOLDER = str(Path(__file__).parent) + os.sep
_IMPORT_MACHINERY = ("<frozen importlib", str(Path(__file__).with_name("isolated_import.py")))
_IMPORTLIB = os.path.join("importlib", "__init__.py")  # noqa: PTH118 - the end of a path


@contextmanager
def user_code(where: str) -> Iterator[None]:
    """Run user code; an error that it raises becomes a ``UserCodeError`` with a trimmed traceback.

    Raises:
        UserCodeError: The user's code raised. kubeml's own errors pass unchanged.
    """
    try:
        yield
    except (KubemlError, Abandoned):
        raise
    except Exception as err:
        # This is the border to user code: the user is to see whatever their code raises.
        raise _told(where, err) from err
    except SystemExit as err:
        # A worker's child also ends by SystemExit, which its signal handler raises inside our
        # frames. Only one that user code raises is an error: argparse does, if main() reads argv.
        if _raising_module(err).startswith("billiard"):
            raise
        raise _told(where, err) from err


def trimmed_traceback(err: BaseException) -> str:
    """Return the traceback with its causes, without kubeml's first frames and import machinery."""
    shown = traceback.TracebackException.from_exception(err)
    part: traceback.TracebackException | None = shown
    while part is not None:
        part.stack = traceback.StackSummary.from_list(_their_frames(part.stack))
        part = part.__cause__ or part.__context__
    return "".join(shown.format())


def seed_everything(seed: int) -> None:
    """Seed torch, numpy's global generator and random, from which user code draws."""
    # torch.manual_seed takes ten times as long: it records a stack trace if CUDA has not started.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def as_number(value: Any, where: str) -> float:
    """Return a loss or accuracy of user code, which is a number or a tensor of one element.

    Raises:
        UserCodeError: The value is something else.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach()
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as err:
        raise UserCodeError(
            where=where, fault=f"returned {type(value).__name__}, expected a number"
        ) from err


def as_predictions(value: Any) -> Any:
    """Return predictions of user code as JSON-able values.

    Raises:
        UserCodeError: They are not a tensor, an array, or a list of these.
    """
    if not isinstance(value, torch.Tensor | np.ndarray | np.generic | list | tuple):
        raise UserCodeError(
            where="infer()",
            fault=f"returned a {type(value).__name__}, expected a tensor, array or list",
        )
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserCodeError(
        where="infer()", fault=f"returned a {type(value).__name__}, which JSON cannot hold"
    )


def _told(where: str, err: BaseException) -> UserCodeError:
    return UserCodeError(
        where=where,
        fault=f"{type(err).__name__}: {err}",
        user_traceback=trimmed_traceback(err),
    )


def _raising_module(err: BaseException) -> str:
    """Return the name of the module whose code raised."""
    trace, name = err.__traceback__, ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name


def _their_frames(stack: traceback.StackSummary) -> list[traceback.FrameSummary]:
    frames = [
        frame
        for frame in stack
        if not frame.filename.startswith(_IMPORT_MACHINERY)
        and not frame.filename.endswith(_IMPORTLIB)
    ]
    start = 0
    while start < len(frames) and frames[start].filename.startswith(_OUR_FOLDER):
        start += 1
    return frames[start:]
