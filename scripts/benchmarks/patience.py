"""Doing what a server may be away for, and waiting: a busy machine may stand still for a while."""

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


def wait_until(
    is_so: Callable[[], bool], *, within_s: float = WITHIN_S, every_s: float = 0.01
) -> None:
    """Look again and again until something is so.

    Raises:
        TimeoutError: It is not in time.
    """
    deadline = time.monotonic() + within_s
    while not patiently(is_so):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {within_s:.0f} s")
        time.sleep(every_s)
