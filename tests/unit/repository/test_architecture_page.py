"""docs/architecture.md has the rooms in the order of their contracts, and counts its files."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def section(title: str) -> str:
    """The text under a heading of the page."""
    text = ARCHITECTURE.read_text()
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rooms_told(package: str) -> list[set[str]]:
    """The rooms of a package, from top to bottom, as the page has them."""
    first_cells = re.findall(r"^\| (`.*?) \|", section(f"The rooms of `{package}`"), re.M)
    return [set(re.findall(r"`(\w+)`", cell)) for cell in first_cells]


def rooms_checked(package: str) -> list[set[str]]:
    """The same by the contract that holds them."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = [c["layers"] for c in contracts if c.get("containers") == [package]]
    return [set(layer.split(" | ")) for layer in layers]


@pytest.mark.parametrize("package", ["kubeml", "brokers"])
def test_the_rooms_are_those_of_the_contract_in_its_order(package: str) -> None:
    assert rooms_told(package) == rooms_checked(package)


def test_the_page_counts_the_files_that_it_lists() -> None:
    flows = re.findall(r"^### (.*?)\n(.*?)(?=^### )", section("The five flows"), re.M | re.S)
    told = dict(re.findall(r"^\| (\w[\w ]*) \| (\d+) \|", ARCHITECTURE.read_text(), re.M))

    listed = {
        title.partition(":")[0]: str(len(re.findall(r"^\| (\d+) \| ", text, re.M)))
        for title, text in flows
    }
    assert len(listed) == 5
    assert told == listed


def test_files_that_the_documents_name_are_there() -> None:
    """Files of the code, in code marks; ``NAME`` stands for one that somebody is to write."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    path = re.compile(r"`((?:kubeml|brokers|tasks|tests|scripts|docs|k8s)/[\w./-]+)`")
    named = {
        (page.name, name)
        for page in pages
        for name in path.findall(page.read_text())
        if "NAME" not in name
    }

    assert len(named) > 60
    assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()
