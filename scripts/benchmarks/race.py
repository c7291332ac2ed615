"""Contestants: processes that get ready, wait for the start, and report one JSON object."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

#: What a contestant prints when it could begin.
READY = "ready"


class Contestant:
    """A module of ``scripts.benchmarks.contestants`` as a process with one thread."""

    def __init__(self, module: str, *arguments: object, python: str = sys.executable) -> None:
        self._command = [
            python, "-P", "-m", f"scripts.benchmarks.contestants.{module}", *map(str, arguments)
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def wait_until_ready(self) -> None:
        """Return once it has loaded everything."""
        self._read_until(READY)

    def start(self) -> None:
        """Let it begin."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """What it reports when it is done."""
        return json.loads(self._read_until("{"))

    def _read_until(self, beginning: str) -> str:
        for line in self._process.stdout:
            if line.startswith(beginning):
                return line
        raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.wait()}")


def race(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Run them at once, from a common start, and return their results."""
    with ExitStack() as stack:
        for contestant in contestants:
            stack.enter_context(contestant)
        for contestant in contestants:
            contestant.wait_until_ready()
        for contestant in contestants:
            contestant.start()
        return [contestant.result() for contestant in contestants]


def get_ready() -> None:
    """A contestant's own part: say so, and wait for the start."""
    print(READY, flush=True)
    sys.stdin.readline()


def report(**result: Any) -> None:
    """A contestant's own part: its last words."""
    print(json.dumps(result), flush=True)
