"""What N and W may be: ranges and times as people write them, and what no job can have."""

from dataclasses import replace
from typing import Any

import pytest

from kubeml.errors import InvalidOption, MalformedMessage
from kubeml.jobs.scale import Scale, asked_parallelism, parse_duration, parse_range
from tests.jobs import make_spec

SCALE = Scale(floor=2, ceiling=8, max_workers=3, number=1, at=1.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4", (4, 4)), (4, (4, 4)), ("2:8", (2, 8)), (" 1:256 ", (1, 256)), ("3:3", (3, 3))],
)
def test_ranges_are_read(text: object, expected: tuple[int, int]) -> None:
    assert parse_range("--parallelism", text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "8:2", "0:4", "2:", ":8", "2:8:9", "2-8", "1.5", "many", "2:257", "9" * 99,
     None, True, 2.0, [2, 8]],
)  # fmt: skip
def test_what_is_no_range_is_refused_by_its_option(text: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_range("--parallelism", text)

    assert caught.value.option == "--parallelism"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), (12.5, 12.5), (7, 7)],
)
def test_times_are_read(text: object, expected: float) -> None:
    assert parse_duration("--deadline", text) == expected


@pytest.mark.parametrize(
    "text", ["", "30", "30 minutes", "-5m", "0s", "m", "1e3s", "nan", 0, -1.0, True, None, [1]]
)
def test_what_is_no_time_is_refused_by_its_option(text: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        parse_duration("--deadline", text)

    assert caught.value.option == "--deadline"


@pytest.mark.parametrize(
    ("parallelism", "ceiling", "static", "expected"),
    [
        ("4", None, False, {"parallelism": 4, "max_parallelism": 16}),
        (20, None, False, {"parallelism": 20, "max_parallelism": 20}),
        (4, 8, False, {"parallelism": 4, "max_parallelism": 8}),
        (4, None, True, {"parallelism": 4, "max_parallelism": 16}),
        ("2:8", None, False, {"parallelism": 2, "min_parallelism": 2, "max_parallelism": 8}),
        ("2:8", 8, False, {"parallelism": 2, "min_parallelism": 2, "max_parallelism": 8}),
        ("4:4", None, True, {"parallelism": 4, "min_parallelism": 4, "max_parallelism": 4}),
    ],
)
def test_n_begins_with_what_is_given_or_with_the_floor(
    parallelism: object, ceiling: int | None, static: bool, expected: dict[str, Any]
) -> None:
    asked = asked_parallelism(parallelism, ceiling, static=static)

    assert asked == expected
    replace(make_spec("j"), static=static, **asked).check()


@pytest.mark.parametrize(
    ("parallelism", "ceiling", "static", "option"),
    [
        ("2:8", 16, False, "--max-parallelism"),
        ("2:8", None, True, "--static"),
        ("8:2", None, False, "--parallelism"),
        (8, 4, False, "--max-parallelism"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    parallelism: object, ceiling: int | None, static: bool, option: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        replace(make_spec("j"), **asked_parallelism(parallelism, ceiling, static=static)).check()

    assert caught.value.option == option


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"policy": "luck"}, "--policy"),
        ({"max_workers": -1}, "--max-workers"),
        ({"max_workers": 1.5}, "--max-workers"),
        ({"min_parallelism": 3}, "--parallelism (its floor)"),
        ({"deadline_s": -1.0}, "--deadline"),
        ({"deadline_s": "30m"}, "--deadline"),
        ({"deadline_s": 60.0, "static": True}, "--deadline"),
        ({"deadline_s": 60.0, "policy": "throughput"}, "--deadline"),
    ],
    ids=str,
)
def test_goals_out_of_range_are_refused_by_their_flag(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        replace(make_spec("j"), **changes).check()

    assert caught.value.option == option


def test_a_static_job_keeps_its_n_and_others_have_their_range() -> None:
    spec = replace(make_spec("j"), parallelism=4, max_parallelism=9, max_workers=2)

    assert Scale.of(spec) == Scale(floor=1, ceiling=9, max_workers=2)
    assert Scale.of(replace(spec, static=True)) == Scale(floor=4, ceiling=4, max_workers=2)


def test_scale_survives_the_wire_and_what_no_job_can_have_does_not() -> None:
    assert Scale.from_wire(SCALE.to_wire()) == SCALE

    for spoilt in ({"floor": 0}, {"floor": 9}, {"ceiling": 1000}, {"max_workers": -1}, {"x": 1}):
        with pytest.raises(MalformedMessage):
            Scale.from_wire(SCALE.to_wire() | spoilt)


def test_the_training_set_fills_every_slot_of_the_floor() -> None:
    SCALE.check(num_rows=2)

    with pytest.raises(InvalidOption, match="1 rows"):
        SCALE.check(num_rows=1)
