"""Servers that the tests of faults may kill, empty, and set back."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil

from brokers.settings import Secret, Settings
from kubeml.stack.servers import (
    ServerPlan,
    s3_command,
    s3_environment,
    valkey_command,
    wait_for_s3,
    wait_for_valkey,
)
from tests.processes import end, start_server


class Server:
    """A server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.plan = ServerPlan.make()
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: what it wrote to its files in the last second may be lost."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)


class ValkeyServer(Server):
    """A Valkey server with an append-only file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        #: A file that says how far off its clock is, from the next start on.
        self.faketime: Path | None = None
        self.url = Secret(f"redis://:{self.plan.password}@127.0.0.1:{self.plan.valkey_port}/0")

    def start(self) -> None:
        # A file that may not grow is an error to be told, rather than a signal that kills.
        command = ["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh"]
        command += valkey_command(self.plan, self.folder)
        env = None
        if self.faketime is not None:
            env = os.environ | faketime_environment(self.faketime)
        self._process = process = start_server(command, self.folder / "log", env=env)
        settings = Settings(home=self.folder, broker_url=self.url)
        wait_for_valkey(settings, within_s=20, is_up=lambda: process.poll() is None)

    def empty(self) -> None:
        """Forget everything (while it is not running)."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)

    def save(self, folder: Path) -> None:
        """Copy what it has on the disk, as a snapshot of the volume would."""
        shutil.copytree(self.folder / "appendonlydir", folder)

    def restore(self, folder: Path) -> None:
        """Set it back to such a copy (while it is not running)."""
        self.empty()
        shutil.copytree(folder, self.folder / "appendonlydir")

    def limit_files(self, num_bytes: int) -> None:
        """No file of it may grow beyond so many bytes, as on a full disk; -1: no limit."""
        limits = (num_bytes, psutil.RLIM_INFINITY)
        psutil.Process(self.pid).rlimit(psutil.RLIMIT_FSIZE, limits)

    @property
    def file_bytes(self) -> int:
        """Size of its largest append-only file."""
        return max(file.stat().st_size for file in (self.folder / "appendonlydir").iterdir())


class S3Server(Server):
    """An S3 server."""

    @property
    def port(self) -> int:
        return self.plan.s3_ports["s3"]

    def start(self) -> None:
        command = s3_command(self.plan, self.folder)
        self._process = process = start_server(command, self.folder / "log", env=s3_environment())
        settings = self.plan.settings(Settings(home=self.folder))
        wait_for_s3(settings, within_s=30, is_up=lambda: process.poll() is None)


def faketime_environment(file: Path) -> dict[str, str]:
    """Environment of a process whose wall clock is what ``file`` says, e.g. ``+3600``."""
    import libfaketime

    library = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
