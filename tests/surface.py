"""The names that others rely on, read off the code: what ``tests/frozen`` holds, a line for each.

    FREEZE=1 pytest tests/integration/test_frozen_keys.py tests/unit/test_frozen_surface.py

writes them anew, after a change that is meant. The digest of them all stands in CHANGELOG.md under
*Unreleased*, so that none changes without a line there.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import unified_diff
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.utils import get_params_from_function

FROZEN = Path(__file__).parent / "frozen"
CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"

#: Stands for a value of any type in a sample of a document.
_ANY = "<any>"

_PLAIN: dict[Any, Any] = {str: "x", int: 1, float: 0.5, bool: True, Any: _ANY}


def require_frozen(name: str, lines: Iterable[str]) -> None:
    """Hold lines against ``tests/frozen/{name}.txt``, or write them there if FREEZE is set.

    Raises:
        AssertionError: They differ; it says what to do.
    """
    path = FROZEN / f"{name}.txt"
    now = sorted(set(lines))
    if os.environ.get("FREEZE"):
        path.write_text("".join(f"{line}\n" for line in now), "utf-8")
    was = path.read_text("utf-8").splitlines() if path.exists() else []
    changes = [
        line
        for line in unified_diff(was, now, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    if changes:
        listed = "\n  ".join(changes)
        raise AssertionError(
            f"names that others rely on are not those of tests/frozen/{name}.txt:\n  {listed}\n"
            "If that is not meant, repair the code. If it is: run\n"
            "  FREEZE=1 pytest tests/integration/test_frozen_keys.py "
            "tests/unit/test_frozen_surface.py\n"
            "tell users under [Unreleased] in CHANGELOG.md what changes for them, and put the new "
            "digest there, as test_changelog_quotes_the_digest says"
        )


def frozen_digest() -> str:
    """A digest of all that is frozen."""
    whole = hashlib.sha256()
    for path in sorted(FROZEN.glob("*.txt")):
        whole.update(f"{path.name}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def unreleased() -> str:
    """What CHANGELOG.md says under *Unreleased*."""
    section = re.search(
        r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", CHANGELOG.read_text("utf-8"), re.M | re.S
    )
    return section[1] if section else ""


# -- the command line ----------------------------------------------------------------------------


def command_lines(app: typer.Typer) -> Iterator[str]:
    """Every command, and each of its options and arguments with type and default."""
    for path, command in _walk(typer.main.get_command(app), ("kubeml",)):
        yield " ".join(path)
        # Of the function: typer keeps types in other places from version to version.
        of = get_params_from_function(command.callback) if command.callback else {}
        for parameter in command.params:
            # Others are typer's own.
            if parameter.name in of:
                kind = of[parameter.name].annotation
                yield f"{' '.join(path)} {_parameter(parameter, kind)}"


def commands_with(flag: str, app: typer.Typer) -> set[str]:
    """The commands that have a flag, without ``kubeml``."""
    return {
        " ".join(path[1:])
        for path, command in _walk(typer.main.get_command(app), ("kubeml",))
        if any(flag in parameter.opts for parameter in command.params)
    }


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _walk(child, (*path, name))


def _parameter(parameter: Any, kind: Any) -> str:
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"<{parameter.metavar or parameter.name.upper()}>"
    default = "required" if parameter.required else f"= {parameter.default!r}"
    return f"{names} {_name(kind)} {default}"


def _name(kind: Any) -> str:
    """A type's name, as one may leave it out."""
    if get_origin(kind) in {Union, UnionType}:
        return "|".join(_name(one) for one in get_args(kind) if one is not NoneType)
    return str(kind) if get_origin(kind) else str(kind.__name__)


# -- documents -----------------------------------------------------------------------------------


def document_lines(command: str, *documents: Any) -> Iterator[str]:
    """The fields of JSON documents that a command prints, with what stands there.

    Args:
        command: The command.
        documents: As they are printed. What differs between them is told as alternatives.
    """
    kinds: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in _leaves(document, ""):
            kinds.setdefault(path, set()).add(kind)
    for path, found in kinds.items():
        yield f"{command}: {path or '.'} {'|'.join(sorted(found))}"


def samples(kind: type[Any]) -> list[Any]:
    """Two values of a type: one that has all there can be, one that has None where it may."""
    return [_sample(kind, full=full) for full in (True, False)]


class _AnyKey(dict[str, Any]):
    """A mapping with keys that the type does not say: ``*``, and whichever is asked for."""

    def __missing__(self, key: str) -> Any:
        return self["*"]


def _sample(hint: Any, *, full: bool) -> Any:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is not None:
        return _sample_of_generic(origin, inner, full=full)
    if issubclass(hint, Enum):
        return next(iter(hint))
    values = {
        name: _sample(one, full=full)
        for name, one in get_type_hints(hint).items()
        if get_origin(one) is not ClassVar and not name.startswith("_")
    }
    return hint(**values)


def _sample_of_generic(origin: Any, inner: tuple[Any, ...], *, full: bool) -> Any:
    if origin in {Union, UnionType}:
        if NoneType in inner and not full:
            return None
        return _sample(next(one for one in inner if one is not NoneType), full=full)
    if origin is Literal:
        return inner[0]
    if issubclass(origin, Mapping):
        return _AnyKey({"*": _sample(inner[1], full=full)})
    if origin is tuple and Ellipsis not in inner:
        return tuple(_sample(one, full=full) for one in inner)
    one = _sample(inner[0], full=full)
    return (one,) if origin is tuple else [one]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, f"{path}[]")
    else:
        yield path, _json_kind(value)


def _json_kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "any" if value == _ANY else "text"
    return {bool: "true/false", int: "whole", float: "number"}[type(value)]
