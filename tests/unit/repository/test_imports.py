"""Imports form no circle, in whatever place they are written.

import-linter holds the order of the rooms. This test holds what it does not look at: circles among
the files of one room, and imports inside functions or behind ``TYPE_CHECKING``, by which a circle
can be hidden but not removed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("kubeml", "brokers", "tasks")


def module_name(path: Path) -> str:
    """The dotted name of a file; a package's own name for its ``__init__.py``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
}


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Every module of ours that is imported anywhere in a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES:
                    yield inner
                elif node.module in MODULES:
                    yield node.module


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan, SIAM J. Comput. 1972)."""
    found: list[list[str]] = []
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(sorted(members))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {other for other in imported_by(ast.parse(path.read_text())) if other != name}
        for name, path in MODULES.items()
    }

    assert sum(map(len, graph.values())) > 500, "the imports were read"
    assert circles(graph) == []


def test_a_circle_is_found_wherever_its_imports_are_written() -> None:
    inside = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from kubeml import errors\n"
        "def f():\n    import kubeml.machine\n    from brokers.settings import Settings\n"
    )

    assert set(imported_by(inside)) == {"kubeml.errors", "kubeml.machine", "brokers.settings"}
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
