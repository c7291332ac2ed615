"""Every folder of the examples gallery, by the commands of its own README."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeml.client.client import Client
from tests.cli import Cli
from tests.cluster import Cluster

SCRIPTS = Path(__file__).parents[2] / "scripts"
GALLERY = SCRIPTS / "examples"
EXAMPLES = ("heartbeats", "housing", "lenet", "reviews", "shapes")


def test_gallery_lists_every_example() -> None:
    index = (GALLERY / "README.md").read_text()

    linked = set(re.findall(r"\]\((\w+)/README\.md\)", index))
    assert {readme.parent.name for readme in GALLERY.glob("*/README.md")} == set(EXAMPLES)
    assert linked == set(EXAMPLES)


# In every run those whose kind of function nothing else tries; the demo trains LeNet.
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(name, marks=[] if name in {"heartbeats", "reviews"} else [pytest.mark.full])
        for name in EXAMPLES
    ],
)
def test_example_reaches_what_it_promises(
    example: str, cluster: Cluster, client: Client, folder: Path
) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    commands = read_commands(folder / "README.md")

    job_id, answers = follow(commands, Cli(cluster.settings, folder))

    end = client.job(job_id).result()
    assert end.accuracy is not None
    assert end.accuracy >= expected["accuracy"]
    wrong = [
        (answer, right)
        for answer, right in zip(answers, expected["answers"], strict=True)
        if not agrees(answer, right)
    ]
    assert wrong == []


@pytest.fixture
def folder(example: str, client: Client, tmp_path: Path) -> Iterator[Path]:
    """A copy of the example, its dataset's and function's names free, as they are afterwards."""
    copy = tmp_path / "examples" / example
    shutil.copytree(GALLERY / example, copy, ignore=shutil.ignore_patterns("*.npz", "__pycache__"))
    (tmp_path / "data").symlink_to(SCRIPTS / "data")
    names = re.findall(r"create --name (\w+)", (copy / "README.md").read_text())
    forget(client, names)
    yield copy
    forget(client, names)


def forget(client: Client, names: list[str]) -> None:
    """Delete the datasets and functions of these names: other tests of the run use some, too."""
    for dataset in client.datasets.list():
        if dataset.name in names:
            client.datasets.delete(dataset.name)
    for function in client.functions.list():
        if function.name in names:
            client.functions.delete(function.name)


def read_commands(readme: Path) -> list[str]:
    """The lines of a README's first block of commands."""
    block = re.search(r"```bash\n(.*?)```", readme.read_text(), re.DOTALL)
    assert block is not None
    return block[1].replace("\\\n", " ").splitlines()


def follow(commands: list[str], kubeml: Cli) -> tuple[str, Any]:
    """Do what the commands say; returns the job's id and what ``infer`` answered."""
    job_id, answers = "", None
    for command in commands:
        line = command.replace("$JOB", job_id)
        if line == "python data.py":
            subprocess.run([sys.executable, "data.py"], cwd=kubeml.cwd, check=True)
            continue
        found = re.fullmatch(r"(JOB=\$\()?kubeml (.*?)\)?", line)
        assert found is not None, line
        is_training, arguments = found.groups()
        if arguments.startswith("function create"):
            # The trial step is the matter of other tests, and takes seconds.
            arguments += " --no-check"
        ran = kubeml(arguments)
        assert ran.code == 0, ran.err
        if is_training:
            job_id = ran.out.strip()
        elif arguments.startswith("infer"):
            answers = ran.json
    return job_id, answers


def agrees(answer: Any, expected: Any) -> bool:
    """Whether an answer is the expected one, as far as that goes; fractions may be a tenth off."""
    if isinstance(expected, dict):
        return all(agrees(answer[key], value) for key, value in expected.items())
    if isinstance(expected, float):
        return bool(answer == pytest.approx(expected, rel=0.1))
    return bool(answer == expected)
