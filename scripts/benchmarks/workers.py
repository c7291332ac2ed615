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

#: A worker imports torch before it is ready; on a busy machine that takes long.
READY_WITHIN_S = 120.0
_DRAIN_S = 30.0


class Workers:
    """Processes ``kubeml worker`` on the servers of a client. ``close`` ends all of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._env = child_environment(client.settings)
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
        child = Child(
            name=name, role="worker", command=[sys.executable, "-P", "-m", "kubeml", "worker",
            "--name", name], env=self._env, cwd=home, log=home / "logs" / f"{name}.log",
        )  # fmt: skip
        child.start()
        self._children[name] = child
        return name

    def is_ready(self, name: str) -> bool:
        """Whether a worker has announced itself, and has imported torch.

        Raises:
            RuntimeError: It has ended.
        """
        child = self._children[name]
        text = child.log.read_bytes() if child.log else b""
        if not child.is_up:
            raise RuntimeError(f"{name} has ended: {text.decode(errors='replace')[-2000:]}")
        announced = [node.name for node in alive_nodes(self._client.redis, role="worker")]
        return name in announced and b"ready for work" in text

    def wait_for(self, *names: str) -> None:
        """Wait until they are ready.

        Raises:
            TimeoutError: One is not in time.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        for name in names:
            while not self.is_ready(name):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} is not ready within {READY_WITHIN_S:.0f} s")
                time.sleep(0.05)

    def terminate(self, name: str) -> float:
        """Tell one to go (SIGTERM), and return when that was, in Unix seconds."""
        child = self._children[name]
        at = time.time()
        if child.process is not None:
            child.process.terminate()
        child.is_leaving = True
        return at

    def kill(self, name: str) -> float:
        """Kill one and its children (SIGKILL), as a machine that dies; when that was."""
        child = self._children.pop(name)
        at = time.time()
        if child.process is not None:
            os.killpg(child.process.pid, signal.SIGKILL)
            kill_group(child.process.pid)
            child.process.wait()
        return at

    def retire(self, *names: str) -> None:
        """Tell them to go, and wait until they have; all of them, unless named."""
        chosen = [self._children.pop(name) for name in names or list(self._children)]
        end_all(chosen, _DRAIN_S)

    def close(self) -> None:
        """End all of them."""
        self.retire()
