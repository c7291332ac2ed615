"""What the commands print where no terminal reads it: whole cells, and a line for each row."""

import pytest
from rich.text import Text

from kubeml.cli import output
from kubeml.cli.app import run


def test_a_table_that_is_piped_has_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "no worker has a GPU " * 20

    output.table(
        ("ID", "REASON", "N"), [("a" * 63, reason + "end", "1"), ("b", "-", "20")], right=("N",)
    )

    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "REASON", "N"]
    assert first == f"{'a' * 63}  {reason}end   1"
    assert second.split() == ["b", "-", "20"]
    assert len(second) == len(first)


def test_a_cell_of_several_lines_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("ID", "REASON"), [("a", "[red] first\nsecond"), ("b", "-")])

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["ID  REASON", "a   [red] first second", "b   -"]


def test_a_terminals_width_cuts_cells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")

    output.table(("ID", "REASON"), [("a", "x" * 100)])

    lines = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 40


def test_a_text_is_cut_where_a_terminal_reads_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "x" * 200 + "\nmore"

    assert output.first_line(text) == "x" * 200
    assert output.first_line("") == ""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert output.first_line(text) == "x" * 100


@pytest.mark.parametrize("line", ["JOB 3", "JOB", "", "3 --max-workers 2"])
def test_scale_without_the_option_names_it(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["task", "scale", *line.split()]) == 2

    told = capsys.readouterr().err
    assert "error: --id is missing" in told
    assert "kubeml task scale --id JOB" in told


def test_scale_takes_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["task", "scale", "--id", "j", "3", "4"]) == 2

    assert "error: N is '3 4'" in capsys.readouterr().err
