"""What crosses a process border is made into typed values, or refused with the value named."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import pytest

from brokers.errors import MalformedMessage
from brokers.wire import from_wire


class Part(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    loss: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.name == "nobody":
            raise ValueError("nobody is no name")


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        ([], "Expected `object`"),
        (None, "Expected `object`"),
        ({}, "missing required field `name`"),
        ({"name": 3}, "name is '3': expected `str`"),
        ({"name": "a", "loss": True}, "loss is 'True': expected `float | null`"),
        ({"name": "a", "shoes": 2}, "shoes is no field"),
        ({"name": "a", "seconds": [1]}, r"seconds is '\[1\]': expected `object`"),
        ({"name": "a", "seconds": {"fetch": "x"}}, "seconds"),
        ({"name": "a", "parts": [{"size": 1}, {"size": 0}]}, r"parts\[1\].size is '0': expected"),
        ({"name": "a", "parts": [{"size": 1, "url": "x"}]}, "unknown field `url`"),
        ({"name": "nobody"}, "nobody is no name"),
        ({"name": "x" * 1000, "loss": "y" * 100_000}, "loss is 'y"),
    ],
)
def test_value_that_does_not_fit_is_refused_by_name(wire: Any, fault: str) -> None:
    with pytest.raises(MalformedMessage, match=fault) as told:
        from_wire(Whole, wire, what="whole")

    assert str(told.value).startswith("malformed whole: ")
    assert len(str(told.value)) < 400


def test_value_that_fits_is_read_with_its_defaults() -> None:
    wire = {"name": "a", "seconds": {"fetch": 1}, "parts": [{"size": 2}]}

    assert from_wire(Whole, wire, what="whole") == Whole(
        name="a", seconds={"fetch": 1.0}, parts=(Part(size=2),)
    )
