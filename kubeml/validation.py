"""Refuses values out of range, by the name of their option; all rooms may use it. Pure."""

import math
import re
from typing import NoReturn

from kubeml.errors import InvalidOption

#: Names of functions and datasets: they become S3 keys and file names.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def check_name(option: str, name: str) -> str:
    """Return ``name`` if it may name a function or dataset.

    Raises:
        InvalidOption: Empty, too long, or with characters that are unsafe in keys and paths.
    """
    if not NAME.fullmatch(name) or ".." in name:
        refuse(
            option, repr(name), "1 to 63 letters, digits, '.', '_' or '-', a letter or digit first"
        )
    return name


def check_int(option: str, value: object, *, low: int, high: int, also: str = "") -> None:
    """Refuse a value that is not a whole number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        tail = f", or {also}" if also else ""
        refuse(option, value, f"a whole number from {low} to {high}{tail}")


def check_number(option: str, value: object, *, above: float) -> None:
    """Refuse a value that is not a finite number above ``above``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(option, value, f"a number above {above:g}")
    elif not (math.isfinite(value) and value > above):
        refuse(option, value, f"a finite number above {above:g}")


def check_between(
    option: str,
    value: object,
    *,
    expected: str,
    high: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse what is no number from 0 to ``high`` and below ``below``."""
    if not isinstance(value, int | float) or not 0.0 <= value <= high or not value < below:
        refuse(option, value, expected)


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among ``choices``."""
    if value not in choices:
        refuse(option, repr(value), "one of " + ", ".join(choices))


def refuse(option: str, got: object, expected: str) -> NoReturn:
    """Raise the error that says that an option is out of range.

    Raises:
        InvalidOption: Always.
    """
    raise InvalidOption(option=option, got=str(got), expected=expected)
