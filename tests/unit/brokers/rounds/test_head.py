"""The declaration of a job's head, held against what the scripts and Python do with it."""

import re
from dataclasses import fields, replace
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.rounds.head import Head
from brokers.state.scripts import script_sources

#: Attribute to name on Redis.
NAMES = {
    one.name: Head.names(one.name)[0].decode() for one in fields(Head) if one.name != "unreadable"
}

#: What Python writes when a generation begins; ``RoundStore.init`` adds gen and birth.
BEGINS = {
    "life", "state", "device", "layout", "overlap", "hedge", "lease_ms", "max_errors", "max_lost",
    "epoch", "round", "rounds", "rid", "slots", "want", "ver", "w", "m", "scale", "floor",
    "ceiling", "max_workers", "weight",
}  # fmt: skip
ADDED = {"gen", "birth"}

SOURCE = "\n".join(re.sub(r"--[^\n]*", "", source) for source in script_sources().values())

READ = set(re.findall(r"\b(?:head|number)\('(\w+)'\)", SOURCE))
READ_AS_NUMBERS = set(re.findall(r"\bnumber\('(\w+)'\)", SOURCE))


def arguments(call: str) -> list[list[str]]:
    """The arguments of each such call in the scripts, after the hash's name."""
    found = []
    for match in re.finditer(rf"redis\.call\('{call}', H, ", SOURCE):
        parts, depth, start, at = [], 0, match.end(), match.end()
        while depth >= 0:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(SOURCE[at], 0)
            if depth < 0 or (depth == 0 and SOURCE[at] == ","):
                parts.append(SOURCE[start:at].strip())
                start = at + 1
            at += 1
        found.append(parts)
    return found


def written_by_scripts() -> set[str]:
    names = [name for parts in arguments("HSET") for name in parts[::2]]
    names += [parts[0] for parts in arguments("HINCRBY")]
    assert all(re.fullmatch(r"'\w+'", name) for name in names), names
    return {name.strip("'") for name in names}


def test_scripts_touch_the_head_in_no_way_that_is_not_looked_at_here() -> None:
    calls = set(re.findall(r"redis\.call\('(\w+)', H\b", SOURCE))

    # DEL, EXPIRE and HGETALL name no field; INIT hands on what Python writes, see BEGINS.
    assert calls == {"HGET", "HSET", "HINCRBY", "HGETALL", "DEL", "EXPIRE"}
    assert re.findall(r"'HGET', H, ([^)]+)\)", SOURCE) == ["field"] * len(script_sources())
    assert SOURCE.count("slot and O or H, slot or ARGV[i], ARGV[i + 1]") == 1


def test_every_field_of_the_scripts_is_declared() -> None:
    assert (READ | written_by_scripts()) - set(NAMES.values()) == set()


def test_every_declared_field_is_written_by_the_scripts_or_by_python() -> None:
    assert set(NAMES.values()) == written_by_scripts() | BEGINS | ADDED


def test_no_script_reads_what_nobody_writes() -> None:
    assert READ - written_by_scripts() - BEGINS - ADDED == set()


def test_numbers_of_the_scripts_are_numbers_here() -> None:
    types = {name: get_type_hints(Head)[attribute] for attribute, name in NAMES.items()}

    numbers = {int, float, int | None, float | None}
    assert {name: types[name] for name in READ_AS_NUMBERS if types[name] not in numbers} == {}


def test_python_writes_what_a_generation_begins_with_and_nothing_else() -> None:
    assert set(Head().to_fields()) == BEGINS


def test_flags_are_written_as_the_scripts_read_them() -> None:
    written = Head(overlap=True, hedge=False).to_fields()

    assert (written["overlap"], written["hedge"]) == ("1", "0")


@given(
    st.builds(
        Head,
        state=st.text(max_size=9),
        rid=st.text(max_size=9),
        epoch=st.integers(0, 10**6),
        version=st.integers(0, 10**6),
        weights=st.text(max_size=9),
        overlap=st.booleans(),
        lease_ms=st.integers(0, 10**9),
    )
)
def test_what_is_written_is_read(head: Head) -> None:
    written = {name.encode(): text.encode() for name, text in head.to_fields().items()}

    assert Head.from_fields(written) == head


def test_numbers_are_read_as_redis_writes_them() -> None:
    head = Head.from_fields({
        b"since": b"1800000000000", b"opened": b"1800000000000.125", b"trained_ms": b"1e3",
        b"want": b"3.0", b"credit": b"-7", b"allot": b"0", b"expected_s": b"1.25",
    })  # fmt: skip

    assert (head.since, head.opened, head.trained_ms) == (1.8e12, 1.8e12 + 0.125, 1000)
    assert (head.want, head.credit, head.allot, head.expected_s) == (3, -7, 0, 1.25)


def test_what_is_empty_or_of_a_later_version_counts_as_missing() -> None:
    empty = {name.encode(): b"" for name in NAMES.values()}

    assert Head.from_fields({**empty, b"shoes": b"two"}) == Head.from_fields({}) == Head()
    assert Head.from_fields({b"gen": None, b"want": None}) == Head()


@pytest.mark.parametrize("garbage", [b"much", b"inf", b"nan", b"\xff", b"1e999", b"{}"])
@pytest.mark.parametrize(
    "attribute",
    [name for name in NAMES if get_type_hints(Head)[name] not in {str, bool}],
)
def test_number_that_is_none_counts_as_missing_and_is_told_of(
    attribute: str, garbage: bytes
) -> None:
    head = Head.from_fields({b"gen": b"1", NAMES[attribute].encode(): garbage})

    assert replace(head, unreadable=()) == Head(gen="1")
    (told,) = head.unreadable
    assert told.startswith(f"{NAMES[attribute]} is '")


@given(st.dictionaries(st.sampled_from(sorted(NAMES.values())), st.binary(max_size=30)))
def test_nothing_that_stands_in_a_head_keeps_it_from_being_read(raw: dict[str, bytes]) -> None:
    head = Head.from_fields({name.encode(): text for name, text in raw.items()})

    assert bool(head) == bool(raw.get("gen"))
