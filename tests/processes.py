"""Servers as processes of the tests' own."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path


def start_server(
    command: list[str], log: Path, *, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, in the directory of ``log``, which it appends to."""
    with log.open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env,
            cwd=log.parent, start_new_session=True,
        )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and everything it started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        # The S3 server leaves sockets behind in /tmp if it is killed.
        process.wait(10)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(10)


@contextlib.contextmanager
def running_server(
    command: list[str], log: Path, *, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is started, and ended afterwards."""
    process = start_server(command, log, env=env)
    try:
        yield process
    finally:
        end(process)
