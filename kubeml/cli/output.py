"""How all commands print: data on stdout, talk on stderr."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from kubeml.errors import Interrupted, InvalidOption, JobFailed, KubemlError

if TYPE_CHECKING:
    from rich.console import Console

#: The width when stdout is no terminal: programs read it, and a name that is cut is no name.
_ENDLESS = 10**6


def line(text: str) -> None:
    """Print a line of data."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print an error on stderr."""
    _stderr().print(f"[bold red]error:[/] {_escape(text)}", highlight=False, soft_wrap=True)


def hint(text: str) -> None:
    """Print what to do next on stderr."""
    _stderr().print(f"[cyan]hint:[/] {_escape(text)}", highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print talk on stderr."""
    _stderr().print(_escape(text), highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    _stderr().print(f"[yellow]warning:[/] {_escape(text)}", highlight=False, soft_wrap=True)


def error(err: KubemlError) -> None:
    """Print one of our errors: first the user's own traceback, then one line, then the hint."""
    traceback = str(getattr(err, "user_traceback", "") or "")
    text = str(err)
    if isinstance(err, JobFailed):
        first, _, traceback = err.reason.partition("\n")
        text = f"job {err.job_id} failed: {first}"
    if traceback:
        say(traceback.rstrip())
    if isinstance(err, Interrupted):
        say(text)
    else:
        complain(text)
    if err.hint:
        hint(err.hint)


def as_json(value: Any) -> None:
    """Print a JSON document."""
    line(json.dumps(value, indent=2, default=str))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table with a line for each row. Columns named in ``right`` are aligned right.

    Cells are cut only where a terminal has no room for them.
    """
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(_escape(" ".join(cell.splitlines())) for cell in row))
    stdout().print(grid, soft_wrap=True)


def rows(
    items: Sequence[Any],
    columns: Sequence[str],
    cells: Callable[[Any], Sequence[str]],
    *,
    as_json_: bool,
    quiet: bool = False,
    name: Callable[[Any], str] = lambda item: str(item.name),
    right: Sequence[str] = (),
    empty: str = "nothing there",
) -> None:
    """Print a list the way the user asked for: as a table, as JSON, or as names alone."""
    if as_json_:
        as_json([item.to_wire() for item in items])
    elif quiet:
        for item in items:
            line(name(item))
    elif items:
        table(columns, [cells(item) for item in items], right=right)
    else:
        say(empty)


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Print what is known of one thing, each field on a line."""
    known = [(key, value) for key, value in pairs if value != ""]
    width = max((len(key) for key, _ in known), default=0)
    for key, value in known:
        head, *more = value.splitlines() or [""]
        line(f"{key:<{width}}  {head}")
        for rest in more:
            line(f"{'':<{width}}  {rest}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed.

    Raises:
        InvalidOption: There is nobody to ask, and ``--yes`` was not given.
        click.Abort: The answer is no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidOption(
            option="--yes",
            got="not given",
            expected="given where nobody can be asked",
            hint=f"this would {question}; add --yes to do it",
        )
    typer.confirm(f"{question[0].upper()}{question[1:]}?", abort=True, err=True)


def either(by_option: str | None, by_argument: str | None, *, option: str) -> str:
    """Return the name that was given, be it as an option or as an argument.

    Raises:
        InvalidOption: It was given in neither way, or there are two different ones.
    """
    given = {value for value in (by_option, by_argument) if value}
    if len(given) == 1:
        return given.pop()
    raise InvalidOption(
        option=option,
        got="given twice, differently" if given else "missing",
        expected="given once",
        hint=f"for example: {option} NAME",
    )


def first_line(text: str) -> str:
    """Return a text's first line, cut on a terminal so that other columns have room."""
    first = next(iter(text.splitlines()), "")
    return first[:100] if sys.stdout.isatty() else first


def age(at: float) -> str:
    """Return how long ago a time was, for people."""
    seconds = max(0.0, time.time() - at)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit} ago"
    return f"{seconds:.0f}s ago"


def size(num_bytes: float) -> str:
    """Return a number of bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return ""


def number(value: float | None, *, digits: int = 2) -> str:
    """Return a number as text; None becomes a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def stdout() -> "Console":
    """Return a console on stdout; when stdout is no terminal it is as wide as its text."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _ENDLESS)


def stderr_is_live() -> bool:
    """Return whether bars may be drawn on stderr."""
    return sys.stderr.isatty() and not os.environ.get("CI")


def stdout_is_live() -> bool:
    """Return whether a changing view may be drawn on stdout."""
    term = os.environ.get("TERM", "").lower()
    return sys.stdout.isatty() and not os.environ.get("CI") and term not in {"dumb", "unknown"}


def _stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
