"""What is installed is what the repository holds: nothing is left out of the wheel."""

from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_script_and_marker_is_installed() -> None:
    installed = {str(file) for file in files("kubeml") or []}

    in_tree = {
        path.relative_to(ROOT).as_posix()
        for package in ("kubeml", "brokers", "tasks")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".lua", ".acl", ".typed"}
    }

    assert in_tree - installed == set()
