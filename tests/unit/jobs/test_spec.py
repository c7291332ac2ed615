"""Job specs: out of range is refused by the flag's name; the wire form is strict."""

import math
from dataclasses import replace

import pytest

from kubeml.errors import InvalidOption, MalformedMessage
from kubeml.jobs.results import EpochRow, JobEnd
from kubeml.jobs.spec import JobSpec, State
from kubeml.validation import check_name

SPEC = JobSpec(
    id="j1", function="f", function_sha256="0" * 64, entry="f.py", dataset="d",
    dataset_version="v", epochs=10, batch_size=32, lr=0.1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("epochs", 0, "--epochs"),
        ("epochs", 2.5, "--epochs"),
        ("batch_size", 0, "--batch"),
        ("lr", 0.0, "--lr"),
        ("lr", -1.0, "--lr"),
        ("lr", math.nan, "--lr"),
        ("lr", math.inf, "--lr"),
        ("parallelism", 0, "--parallelism"),
        ("parallelism", 10_000, "--parallelism"),
        ("max_parallelism", 1, "--max-parallelism"),
        ("k", 0, "--K"),
        ("k", -2, "--K"),
        ("validate_every", -1, "--validate-every"),
        ("goal_accuracy", 101.0, "--goal-accuracy"),
        ("seed", -1, "--seed"),
        ("optimizer_state", "keep", "--optimizer-state"),
        ("outer", "adam", "--outer"),
        ("outer_momentum", 1.0, "--outer-momentum"),
        ("device", "tpu", "--device"),
    ],
)
def test_value_out_of_range_is_refused_by_its_flag(field: str, value: object, flag: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        replace(SPEC, **{field: value}).check()  # type: ignore[arg-type]

    assert caught.value.option == flag
    assert caught.value.exit_code == 2


def test_defaults_are_in_range() -> None:
    SPEC.check()


def test_batch_and_parallelism_must_fit_the_training_set() -> None:
    SPEC.check_against_data(32)

    with pytest.raises(InvalidOption, match="--batch"):
        SPEC.check_against_data(31)
    with pytest.raises(InvalidOption, match="--parallelism"):
        replace(SPEC, batch_size=1, parallelism=8).check_against_data(7)


@pytest.mark.parametrize(
    ("every", "due"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (0, [5]), (9, [5])]
)
def test_validation_is_due_every_so_many_epochs_and_at_the_end(every: int, due: list[int]) -> None:
    spec = replace(SPEC, epochs=5, validate_every=every)

    assert [epoch for epoch in range(1, 6) if spec.validation_due(epoch)] == due


def test_spec_survives_the_wire_and_unknown_fields_do_not() -> None:
    assert JobSpec.from_wire(SPEC.to_wire()) == SPEC

    with pytest.raises(MalformedMessage):
        JobSpec.from_wire({**SPEC.to_wire(), "colour": "red"})
    with pytest.raises(MalformedMessage):
        JobSpec.from_wire({"id": "j1"})


def test_loss_that_is_not_finite_becomes_null_on_the_wire() -> None:
    row = EpochRow(
        epoch=1, parallelism=1, num_workers=1, rounds=1, steps=1, samples=1,
        train_loss=math.nan, val_loss=None, accuracy=None, duration_s=1.0, validation_s=0.0,
        retries=0, decision="", weights_sha256="", ended_at=0.0,
    )  # fmt: skip

    assert row.to_wire()["train_loss"] is None


def test_end_survives_the_wire() -> None:
    end = JobEnd(
        state=State.DONE, reason="", epoch=3, checkpoint="c", weights_sha256="s", accuracy=97.0,
        train_loss=0.1, val_loss=0.2, elapsed_s=9.0, ended_at=1.0,
    )  # fmt: skip

    again = JobEnd.from_wire(end.to_wire())

    assert again == end
    assert again.state is State.DONE


@pytest.mark.parametrize("name", ["", "-a", "a/b", "../x", "a..b", "a b", "x" * 64, ".hidden"])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidOption):
        check_name("--name", name)


@pytest.mark.parametrize("name", ["mnist", "My-Set_2.1", "0"])
def test_plain_names_are_taken(name: str) -> None:
    assert check_name("--name", name) == name
