"""The tutorial's lesson on one's own data, done as it stands there, command by command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brokers.settings import child_environment
from tests.cluster import Cluster

ROOT = Path(__file__).parents[2]
LESSONS = ROOT / "docs" / "tutorial"


def code(text: str, name: str) -> str:
    """A file of a page: the block of Python whose first line names it."""
    (found,) = re.findall(rf"```python\n(# {re.escape(name)}\n.*?)```", text, re.DOTALL)
    return str(found)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a page in order, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.replace("\\\n", "").splitlines()
            found.append((command, [line for line in lines if line]))
    return found


def shape(line: str) -> list[str]:
    """A line without what differs from run to run: every word that has a digit in it."""
    return ["#" if re.search(r"\d", word) else word for word in line.split()]


@pytest.mark.full
@pytest.mark.timeout(300)
def test_lesson_on_your_own_data_prints_what_it_says(cluster: Cluster, tmp_path: Path) -> None:
    text = (LESSONS / "your-own-data.md").read_text()
    for name in ("make_waves.py", "waves.py", "predict.py"):
        (tmp_path / name).write_text(code(text, name))
    broken = code(text, "waves.py").replace("nn.Linear(32, 3)", "nn.Linear(16, 3)")
    assert broken != code(text, "waves.py")
    (tmp_path / "broken.py").write_text(broken)
    environment = child_environment(cluster.settings) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = commands(text)

    assert len(done) == 10
    for command, told in done:
        ran = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        printed = [line for line in ran.stdout.splitlines() if line]
        is_refused = "broken.py" in command
        assert ran.returncode == (6 if is_refused else 0), ran.stdout
        if is_refused:
            # PyTorch's own lines are left out of the page.
            printed = [printed[0], *printed[-2:]]
        wanted = [told[0], *told[-2:]] if is_refused else told
        assert [shape(line) for line in printed] == [shape(line) for line in wanted], command


def test_first_lesson_trains_the_function_of_the_readme() -> None:
    readme, lesson = (ROOT / "README.md").read_text(), (LESSONS / "first-training.md").read_text()

    assert code(lesson, "network.py") == code(readme, "network.py")
