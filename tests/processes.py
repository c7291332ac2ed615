"""Servers as processes of the tests' own."""

import subprocess
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
