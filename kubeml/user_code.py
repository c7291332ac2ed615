"""The border to user code: seeds, and errors whose traceback begins in the user's file."""

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from kubeml.errors import Abandoned, KubemlError, UserCodeError

_OUR_FOLDER = str(Path(__file__).parent)


@contextmanager
def user_code(where: str) -> Iterator[None]:
    """Run user code: what it raises becomes a ``UserCodeError`` with a trimmed traceback.

    Raises:
        UserCodeError: The user's code raised. kubeml's own errors pass unchanged.
    """
    try:
        yield
    except (KubemlError, Abandoned):
        raise
    except Exception as err:
        # The border to user code: whatever they raise is theirs to see.
        raise UserCodeError(
            where=where,
            fault=f"{type(err).__name__}: {err}",
            user_traceback=trimmed_traceback(err),
        ) from err


def trimmed_traceback(err: BaseException) -> str:
    """The traceback without kubeml's own frames at the front."""
    frames = traceback.extract_tb(err.__traceback__)
    start = 0
    while start < len(frames) and frames[start].filename.startswith(_OUR_FOLDER):
        start += 1
    lines = ["Traceback (most recent call last):\n"]
    lines += traceback.format_list(frames[start:])
    lines += traceback.format_exception_only(err)
    return "".join(lines)


def seed_everything(seed: int) -> None:
    """Seed torch, numpy's global generator and random, as user code uses them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
