"""An option is declared once: flag, help, keyword, check and field of the spec come from that."""

import inspect
import json
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from kubeml.cli.options import with_flags_of
from kubeml.cli.reference import command as kubeml_command
from kubeml.client.client import Client
from kubeml.client.submission import called_like
from kubeml.errors import InvalidOption, MalformedMessage
from kubeml.jobs.options import Option, TrainOptions, TrainRequest, options_of
from kubeml.jobs.spec import JobSpec
from kubeml.validation import check_int
from tests.unit.jobs.test_spec import SPEC

#: The spec of ``test_spec`` as version 0.2.0 wrote it.
WRITTEN = (
    '{"id":"j1","function":"f","function_sha256":"' + "0" * 64 + '","entry":"f.py","dataset":"d",'
    '"dataset_version":"v","epochs":10,"batch_size":32,"lr":0.1,"parallelism":2,'
    '"max_parallelism":16,"static":false,"k":-1,"validate_every":1,"goal_accuracy":0.0,"seed":0,'
    '"shuffle":true,"optimizer_state":"reset","outer":"mean","outer_lr":1.0,"outer_momentum":0.0,'
    '"wire":"fp32","device":"cpu","max_errors":3,"overlap":false,"min_parallelism":1,'
    '"policy":"efficiency","deadline_s":0.0,"max_workers":0,"priority":1,"hedge":true,'
    '"created_at":0.0}'
)


@dataclass(frozen=True, kw_only=True)
class WithWarmUp(TrainRequest):
    """The options with one more, which nothing else names."""

    warmup: Annotated[
        int,
        Option("--warmup", help="Steps of warm-up.", check=partial(check_int, low=0, high=100)),
    ] = 0


def test_new_field_is_a_flag_with_its_default_and_help() -> None:
    taken: list[dict[str, object]] = []
    app = typer.Typer()

    @app.command()
    @with_flags_of(WithWarmUp, after={})
    def train(**options: object) -> int:
        taken.append(options)
        return 0

    line = ["-f", "lenet", "-d", "mnist", "-e", "3"]
    runs = [CliRunner().invoke(app, more) for more in (line, [*line, "--warmup", "7"])]
    wrong = CliRunner().invoke(app, [*line, "--warmup", "many"])
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})

    assert [run.exit_code for run in runs] == [0, 0]
    assert [options["warmup"] for options in taken] == [0, 7]
    assert wrong.exit_code == 2
    assert "Steps of warm-up. [default: 0]" in " ".join(shown.output.split())


def test_new_field_is_a_keyword_with_its_meaning_and_check() -> None:
    class Asks:
        @called_like(WithWarmUp)
        def train(self, request: WithWarmUp) -> WithWarmUp:
            """Train.

            Args:
                request: Gives way to the options.

            Raises:
                InvalidOption: It is out of range.
            """
            request.check_each()
            return request

    keyword = inspect.signature(Asks.train).parameters["warmup"]

    assert (keyword.default, keyword.annotation) == (0, int)
    told = inspect.getdoc(Asks.train) or ""
    assert "\n    warmup: Steps of warm-up.\n" in told
    assert "Gives way" not in told
    assert told.endswith("\n\nRaises:\n    InvalidOption: It is out of range.")
    assert Asks().train("lenet", "mnist", epochs=1, warmup=7).warmup == 7
    with pytest.raises(InvalidOption, match="--warmup") as caught:
        Asks().train("lenet", "mnist", epochs=1, warmup=101)
    assert caught.value.option == "--warmup"


def test_new_field_is_written_with_the_spec_after_all_others() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Newer(JobSpec):
        warmup: int = 0

    old = json.loads(WRITTEN)

    newer = Newer.from_wire(old)

    assert newer.warmup == 0
    # In the order that version 0.2.0 wrote; whatever came later comes behind.
    assert list(newer.to_wire())[: len(old)] == list(old)
    assert list(newer.to_wire())[-1] == "warmup"


def test_spec_is_written_as_it_was_and_an_old_one_is_read() -> None:
    old = json.loads(WRITTEN)
    written = dict(list(SPEC.to_wire().items())[: len(old)])

    assert json.dumps(written, separators=(",", ":")) == WRITTEN
    assert JobSpec.from_wire(json.loads(WRITTEN)) == SPEC


@pytest.mark.parametrize("name", ["epochs", "batch_size", "lr"])
def test_record_without_what_every_version_wrote_is_no_spec(name: str) -> None:
    wire = json.loads(WRITTEN)
    del wire[name]

    with pytest.raises(MalformedMessage, match=name):
        JobSpec.from_wire(wire)


@pytest.mark.parametrize(
    ("name", "asked"), [("parallelism", "2:8"), ("max_parallelism", None), ("seed", None)]
)
def test_what_may_be_asked_for_but_is_not_settled_is_no_spec(name: str, asked: object) -> None:
    with pytest.raises(MalformedMessage, match=name):
        JobSpec.from_wire({**json.loads(WRITTEN), name: asked})


def test_each_option_is_declared_and_is_a_keyword_a_field_and_in_the_help() -> None:
    names = {field.name for field in fields(TrainRequest)}
    keywords = inspect.signature(Client.train).parameters
    hints = get_type_hints(TrainRequest)

    assert set(options_of(TrainRequest)) == names
    assert set(keywords) == names | {"self"}
    assert {name: keywords[name].annotation for name in names} == {n: hints[n] for n in names}
    assert {field.name for field in fields(TrainOptions)} <= {
        field.name for field in fields(JobSpec)
    }
    for name, option in options_of(TrainRequest).items():
        assert f"{name}: {option.help}\n" in (Client.train.__doc__ or "")


def test_flags_have_the_defaults_of_the_spec_but_where_nothing_is_another_thing() -> None:
    defaults = {field.name: field.default for field in fields(JobSpec)}

    flags = {p.name: p.default for p in kubeml_command.commands["train"].params}

    asked = {"epochs", "batch_size", "lr"}  # of every spec: it has no default for them
    no_flags = {"min_parallelism", "deadline_s"}
    shared = {field.name for field in fields(TrainOptions)} - asked - no_flags
    other = {name: flags[name] for name in shared if flags[name] != defaults[name]}
    # --parallelism may be a range, the ceiling depends on it, and --static goes with no --policy.
    assert other == {"parallelism": "2", "max_parallelism": None, "policy": None}
    assert (flags["epochs"], flags["batch_size"], flags["lr"]) == (1, 64, 0.01)


def test_unknown_and_missing_keywords_are_told() -> None:
    client = Client.__new__(Client)  # refused before any server is asked

    with pytest.raises(InvalidOption, match="colour"):
        client.train("lenet", "mnist", epochs=1, colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing a required argument: 'epochs'"):
        client.train("lenet", "mnist")  # type: ignore[call-arg]
