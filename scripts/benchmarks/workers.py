"""Training workers of our own beside an embedded stack's: to come, to go and to die as we say."""

import itertools
import os
import signal
import sys
import time
from collections.abc import Sequence

from brokers.pool.presence import alive_nodes
from brokers.settings import child_environment
from kubeml.client.client import Client
from kubeml.stack.child import Child, end_all
from kubeml.stack.processes import kill_group
from scripts.benchmarks.patience import wait_until

_DRAIN_S = 30.0


class Workers:
    """Processes ``kubeml worker`` on the servers of a client. ``retire`` ends all of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._children: dict[str, Child] = {}
        self._names = (f"extra-{number}" for number in itertools.count(1))

    @property
    def names(self) -> Sequence[str]:
        """Those that live and were not told to go, in the order in which they came."""
        return [n for n, c in self._children.items() if c.is_up and not c.is_leaving]

    def start(self, name: str = "") -> str:
        """Start one, and return its name; it is not ready yet."""
        name = name or next(self._names)
        home = self._client.settings.home
        self._children[name] = Child(
            name=name, role="worker", cwd=home, log=home / "logs" / f"{name}.log",
            command=[sys.executable, "-P", "-m", "kubeml", "worker", "--name", name],
            env=child_environment(self._client.settings),
        )  # fmt: skip
        self._children[name].start()
        return name

    def is_ready(self, name: str) -> bool:
        """Whether a worker has announced itself, and has imported torch.

        Raises:
            RuntimeError: It has ended.
        """
        child = self._children[name]
        text = child.log.read_bytes()
        if not child.is_up:
            raise RuntimeError(f"{name} has ended: {text.decode(errors='replace')[-2000:]}")
        announced = [node.name for node in alive_nodes(self._client.backends.redis, role="worker")]
        return name in announced and b"ready for work" in text

    def wait_for(self, *names: str) -> None:
        """Wait until they are ready: a worker imports torch first."""
        wait_until(lambda: all(self.is_ready(name) for name in names), every_s=0.05)

    def terminate(self, name: str) -> float:
        """Tell one to go (SIGTERM), and return when that was, in Unix seconds."""
        child = self._children[name]
        at = time.time()
        child.process.terminate()
        child.is_leaving = True
        return at

    def kill(self, name: str) -> float:
        """Kill one and its children (SIGKILL), as a machine that dies; when that was."""
        process = self._children.pop(name).process
        at = time.time()
        os.killpg(process.pid, signal.SIGKILL)
        kill_group(process.pid)
        process.wait()
        return at

    def retire(self, *names: str) -> None:
        """Tell them to go, and wait until they have; all of them, unless named."""
        end_all([self._children.pop(name) for name in names or list(self._children)], _DRAIN_S)
