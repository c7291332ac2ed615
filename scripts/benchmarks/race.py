"""Contestants: processes that get ready, wait for the start, and report one JSON object."""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

#: What a contestant prints when it could begin.
READY = "ready"


def race(
    module: str,
    *,
    processes: int = 1,
    is_group: bool = False,
    python: str = sys.executable,
    **options: Any,
) -> list[dict[str, Any]]:
    """Run processes of one thread each at once, from a common start, and return their results.

    Args:
        module: Of ``scripts.benchmarks.contestants``.
        processes: How many.
        is_group: Whether they make up a process group: they are told of each other.
        python: The interpreter.
        options: What each of them gets, see ``given``.

    Raises:
        RuntimeError: One of them has ended without a result.
    """
    command = [python, "-P", "-m", f"scripts.benchmarks.contestants.{module}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        started = []
        for rank in range(processes):
            if is_group:
                options |= {"rank": rank, "world": processes, "rendezvous": f"{folder}/at"}
            process = subprocess.Popen(
                [*command, json.dumps(options, default=str)], env=env, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            _read_until(process, READY)
        for process in started:
            process.stdin.write("\n")
            process.stdin.flush()
        return [json.loads(_read_until(process, "{")) for process in started]


def _read_until(process: subprocess.Popen[str], beginning: str) -> str:
    for line in process.stdout:
        if line.startswith(beginning):
            return line
    raise RuntimeError(f"{' '.join(process.args)} ended with {process.wait()}")


def given(**defaults: Any) -> SimpleNamespace:
    """A contestant's own part: the options that it was started with."""
    return SimpleNamespace(**{**defaults, **json.loads(sys.argv[1])})


def get_ready() -> None:
    """A contestant's own part: say so, and wait for the start."""
    print(READY, flush=True)
    sys.stdin.readline()


def report(**result: Any) -> None:
    """A contestant's own part: its last words."""
    print(json.dumps(result), flush=True)
