"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(probe: Callable[[], T], *, within_s: float, what: str) -> T:
    """Call ``probe`` until it returns something true, and return that.

    Args:
        probe: What to look at; it may raise AssertionError to fail at once.
        within_s: The deadline.
        what: What is waited for, for the message.

    Raises:
        AssertionError: It did not come true in time.
    """
    deadline = time.monotonic() + within_s
    pause = 0.005
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {within_s:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
