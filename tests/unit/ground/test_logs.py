"""Log lines: where they come from, in text and JSON, and what may not stand in them."""

import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from brokers.settings import Secret, Settings, secrets_of
from kubeml.logs import JsonLines, TextLines, work_on


@pytest.fixture(autouse=True)
def _about_nothing() -> Iterator[None]:
    work_on()
    yield
    work_on(everywhere=True)
    work_on()


def make_record(text: str, *args: object, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("kubeml.x", logging.WARNING, "x.py", 1, text, args, None)
    record.__dict__.update(fields)
    return record


def in_thread(text: str) -> dict[str, object]:
    """A line that another thread writes."""
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.append(JsonLines().format(make_record(text))))
    thread.start()
    thread.join()
    parsed: dict[str, object] = json.loads(lines[0])
    return parsed


def test_json_line_has_the_place_as_fields() -> None:
    work_on("j", epoch=2, round_index=0, slot=1)

    line = json.loads(JsonLines().format(make_record("slot %d\nis late", 1)))

    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING", "logger": "kubeml.x", "job": "j", "epoch": 2, "round": 0, "slot": 1,
        "message": "slot 1\nis late",
    }  # fmt: skip


def test_what_is_not_known_is_left_out() -> None:
    work_on("j")
    with_job = TextLines().format(make_record("hello"))
    work_on()
    without = TextLines().format(make_record("hello"))

    assert with_job.endswith(" WARNING kubeml.x [job=j] hello")
    assert without.endswith(" WARNING kubeml.x hello")


def test_a_place_is_that_of_its_thread_unless_it_is_said_for_all() -> None:
    work_on("mine")
    assert "job" not in in_thread("hello")

    work_on("all", everywhere=True)

    assert in_thread("hello")["job"] == "all"
    assert json.loads(JsonLines().format(make_record("hello")))["job"] == "mine"


def test_celerys_lines_about_a_task_have_its_job() -> None:
    record = make_record("received", data={"args": "[{'job_id': 'j-1', 'ticket': ''}, 'train']"})

    assert json.loads(JsonLines().format(record))["job"] == "j-1"


def test_traceback_is_a_field_of_its_own() -> None:
    try:
        raise ValueError("the ink has run out")
    except ValueError:
        record = make_record("oh")
        record.exc_info = sys.exc_info()

    line = JsonLines().format(record)

    assert "\n" not in line
    assert json.loads(line)["message"] == "oh"
    assert "ink has run out" in json.loads(line)["traceback"]


@pytest.mark.parametrize("lines", [JsonLines, TextLines])
def test_no_line_holds_a_secret(lines: type[JsonLines | TextLines], tmp_path: object) -> None:
    settings = Settings(
        home=tmp_path, broker_url=Secret("redis://u:hunter%402@h:1/0"),  # type: ignore[arg-type]
        s3_secret_key=Secret("s3cr3t"),
    )  # fmt: skip
    environ = {"AWS_SECRET_ACCESS_KEY": "fromenv"}
    formatter = lines(secrets_of(settings, environ))
    try:
        raise ValueError("hunter@2")
    except ValueError:
        record = make_record(
            "%s and %s, s3cr3t, fromenv, another's: redis://other:pw99@h2/0",
            settings.broker_url, "hunter@2",
        )  # fmt: skip
        record.exc_info = sys.exc_info()

    line = formatter.format(record)

    for secret in ("hunter", "s3cr3t", "fromenv", "pw99"):
        assert secret not in line
    assert "h2/0" in line
