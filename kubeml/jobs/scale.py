"""What a job's user allows: slots N from floor to ceiling, and so many workers W. Pure.

The spec says it at first; ``task scale`` says it anew, and the last word counts: in S3
(``jobs/{id}/scale-{number}.json``), and in the head of the live state.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from brokers.wire import from_wire
from kubeml.errors import InvalidOption, MalformedMessage
from kubeml.jobs.options import MAX_PARALLELISM, MAX_WORKERS
from kubeml.jobs.spec import JobSpec
from kubeml.validation import check_int, check_number, refuse

#: The ceiling where only a start is given.
DEFAULT_CEILING = 16

_RANGE = re.compile(r"(\d{1,9})(?::(\d{1,9}))?")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smh])")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What is allowed from the next epoch on (N) and from now on (W).

    Attributes:
        floor, ceiling: Of the number of slots N.
        max_workers: Workers that may take part at a time; 0 for any number.
        number: How often it was changed; a lower one is out of date.
        at: When it was changed, Unix seconds, for people; 0 for the spec's.
    """

    floor: int
    ceiling: int
    max_workers: int = 0
    number: int = 0
    at: float = 0.0

    @classmethod
    def of(cls, spec: JobSpec) -> Self:
        """What a job was submitted with: a static one keeps its N."""
        low = spec.parallelism if spec.static else spec.min_parallelism
        high = spec.parallelism if spec.static else spec.max_parallelism
        return cls(floor=low, ceiling=high, max_workers=spec.max_workers)

    def check(self, num_rows: int) -> None:
        """Refuse what no job can have.

        Args:
            num_rows: Rows of the training set; each slot has one at least.

        Raises:
            InvalidOption: The first value out of range.
        """
        check_int("the ceiling of N", self.ceiling, low=1, high=MAX_PARALLELISM)
        check_int("the floor of N", self.floor, low=1, high=self.ceiling)
        if self.floor > num_rows:
            refuse("the floor of N", self.floor, f"at most the {num_rows} rows of the training set")
        check_int("--max-workers", self.max_workers, low=0, high=MAX_WORKERS)

    def to_wire(self) -> dict[str, Any]:
        """The scale as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read a scale.

        Raises:
            MalformedMessage: It is not one that a job can have.
        """
        scale = from_wire(cls, wire, what="scale")
        try:
            scale.check(MAX_PARALLELISM)
        except InvalidOption as err:
            raise MalformedMessage(what="scale", fault=str(err)) from err
        return scale


def parse_range(option: str, value: object) -> tuple[int, int]:
    """Read ``4`` as (4, 4), and ``2:16`` as (2, 16).

    Raises:
        InvalidOption: It is neither, or not from 1 to the largest N, the lower one first.
    """
    text = str(value).strip() if isinstance(value, str | int) else ""
    match = _RANGE.fullmatch(text)
    if match is None or isinstance(value, bool):
        refuse(option, repr(value), "a number of slots (4), or a floor and a ceiling (2:16)")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= MAX_PARALLELISM:
        refuse(option, text, f"from 1 to {MAX_PARALLELISM}, the lower number first")
    return low, high


def parse_duration(option: str, value: object) -> float:
    """Read ``90s``, ``30m``, ``1.5h``, or a number of seconds.

    Returns:
        Seconds, above 0.

    Raises:
        InvalidOption: It is none of these.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None or float(match[1]) <= 0:
            refuse(option, repr(value), "a time such as 90s, 30m or 2h")
        return float(match[1]) * _SECONDS[match[2]]
    check_number(option, value, above=0.0)
    return float(value)  # type: ignore[arg-type]


def asked_parallelism(
    parallelism: object, max_parallelism: object, *, static: bool
) -> dict[str, Any]:
    """The spec's fields for what ``--parallelism`` and ``--max-parallelism`` say.

    Args:
        parallelism: ``4``: N begins with 4, and may be anything from 1 to the ceiling. ``2:8``: it
            begins with the floor, which costs the least convergence, and grows if that pays.
        max_parallelism: The ceiling; None for 16, or for the start where that is larger.
        static: Whether N is to stay as it is.

    Raises:
        InvalidOption: They do not fit together.
    """
    low, high = parse_range("--parallelism", parallelism)
    if ":" not in str(parallelism):
        ceiling = max(DEFAULT_CEILING, low) if max_parallelism is None else max_parallelism
        return {"parallelism": low, "max_parallelism": ceiling}
    if static and low < high:
        refuse("--static", f"given with --parallelism {low}:{high}", "one of the two")
    if max_parallelism not in (None, high):
        refuse("--max-parallelism", f"given with --parallelism {low}:{high}", "one of the two")
    return {"parallelism": low, "min_parallelism": low, "max_parallelism": high}
