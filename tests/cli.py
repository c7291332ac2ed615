"""Running the real command line as a process."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brokers.settings import Settings, child_environment


@dataclass(frozen=True)
class Ran:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)


class Cli:
    """The ``kubeml`` command with some settings, in a directory of its own."""

    def __init__(self, settings: Settings, cwd: Path) -> None:
        self.settings = settings
        self.cwd = cwd
        self.env: dict[str, str] = {}

    def __call__(self, line: str, *, within_s: float = 90, stdin: str | None = None) -> Ran:
        """Run ``kubeml LINE`` (split at spaces) and return what it did."""
        done = subprocess.run(
            _command(line), cwd=self.cwd, env=self._environment(), capture_output=True, text=True,
            timeout=within_s, input=stdin, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, line: str, *, err: Path) -> subprocess.Popen[bytes]:
        """Begin ``kubeml LINE``, with its stderr in a file."""
        with err.open("wb") as told:
            return subprocess.Popen(
                _command(line), cwd=self.cwd, env=self._environment(),
                stdout=subprocess.DEVNULL, stderr=told,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        ours = {"PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "200"}
        return child_environment(self.settings) | ours | self.env


def _command(line: str) -> list[str]:
    # With -P, as the installed command: modules of the current folder are not looked for.
    return [sys.executable, "-P", "-m", "kubeml", *line.split()]
