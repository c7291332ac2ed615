"""Rules of the house that no linter checks."""

import ast
import importlib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("kubeml", "brokers", "tasks")
MODULES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in MODULES}

    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_no_class_is_longer_than_two_hundred_and_fifty_lines() -> None:
    lengths = {
        f"{p.relative_to(ROOT).as_posix()}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for p in MODULES
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.ClassDef)
    }

    assert {name: n for name, n in lengths.items() if n > 250} == {}


def test_no_folder_holds_more_than_twenty_files() -> None:
    files = Counter(
        file.parent.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.parent.name != "__pycache__"
    )

    assert {folder: n for folder, n in files.items() if n > 20} == {}


@pytest.mark.parametrize("name", ["kubeml", "kubeml.errors", "kubeml.cli"])
def test_exported_names_are_sorted_and_exist(name: str) -> None:
    module = importlib.import_module(name)

    assert list(module.__all__) == sorted(module.__all__)
    for exported in module.__all__:
        assert getattr(module, exported) is not None


def test_every_lua_script_says_first_what_it_does_and_answers() -> None:
    for script in (ROOT / "brokers" / "rounds" / "lua").glob("[a-z]*.lua"):
        comment = script.read_text().split("\nif ")[0].split("\nlocal ")[0]
        assert comment.startswith("-- "), script.name
        assert "->" in comment, script.name
