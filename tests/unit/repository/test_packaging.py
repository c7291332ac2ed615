"""What is installed is what the repository holds: nothing is left out of the wheel."""

import re
import tomllib
from importlib.metadata import files
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_module_script_and_marker_is_installed() -> None:
    installed = {str(file) for file in files("kubeml") or []}

    in_tree = {
        path.relative_to(ROOT).as_posix()
        for package in ("kubeml", "brokers", "tasks")
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".lua", ".acl", ".typed"}
    }

    assert in_tree - installed == set()


def test_one_version_stands_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    deployment = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", *(ROOT / "k8s").rglob("*.yaml")]

    named = {
        name
        for file in [*deployment, *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(
            r"(?:\bkubeml:|kubernetes\.io/version: )(\d[\w.]*)", file.read_text("utf-8")
        )
    }

    assert named == {version}


def test_changelog_has_dated_versions_and_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert headings[0] == "[Unreleased]"
    assert len(headings) > 1
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading)
