"""The tests that the pages of promises and of defects name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXPLANATION = ROOT / "docs" / "explanation"
TESTS = ROOT / "tests"

#: In code marks: a file of tests, one test of it, or a case of the faults by its number.
NAMED = re.compile(
    r"(?:(?P<file>[\w/]*test_\w+(?:\*\.py|\.py))|…)(?:::(?P<test>test_\w+))?|(?P<case>\d\d_\w*)…?"
)


def named(page: str) -> list[tuple[str, str]]:
    """What a page names: (file, test), the test "" for all of a file, in order."""
    found, file = [], ""
    for code in re.findall(r"`([^`]+)`", (EXPLANATION / page).read_text()):
        match = NAMED.fullmatch(code.replace("tests/", ""))
        if match is None:
            continue
        file = match["file"] or file
        found.append((file, f"test_case_{match['case']}" if match["case"] else match["test"] or ""))
    return found


def source_of(file: str) -> str:
    """The source of the files of that name, wherever in the tree they lie."""
    return "".join(path.read_text() for path in TESTS.rglob(file))


@pytest.mark.parametrize(("page", "at_least"), [("promises.md", 60), ("defects.md", 15)])
def test_every_test_that_a_page_names_is_there(page: str, at_least: int) -> None:
    names = named(page)

    missing = [
        (file, test)
        for file, test in names
        if not (source := source_of(file)) or f"def {test or 'test_'}" not in source
    ]
    assert len(names) >= at_least
    assert missing == []


def test_every_case_of_the_faults_is_promised() -> None:
    promised = {test[:12] for _, test in named("promises.md") if test.startswith("test_case_")}
    cases = {
        name[:12]
        for path in (TESTS / "faults").glob("test_*.py")
        for name in re.findall(r"^def (test_case_\d\d)", path.read_text(), re.M)
    }

    assert len(cases) == 25
    assert promised == cases
