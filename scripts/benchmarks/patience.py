"""Doing what a server may be away for: a busy machine may stand still for a while."""

import time
from collections.abc import Callable
from typing import TypeVar

from kubeml.errors import BackendUnreachable

#: A server that does not answer for longer is gone.
WITHIN_S = 120.0

T = TypeVar("T")


def patiently(act: Callable[[], T]) -> T:
    """Do something that may be done twice, again and again until the servers answer.

    Raises:
        BackendUnreachable: They have not for two minutes.
    """
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            return act()
        except BackendUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
