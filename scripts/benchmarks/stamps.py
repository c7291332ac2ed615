"""What the function ``timed`` notes: when its rounds begin and end, by a clock common to all."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kubeml.client.client import Client

#: (epoch, slot) to the times that its rounds began and ended, in order; seconds, monotonic.
Stamps = Mapping[tuple[int, int], tuple[Sequence[float], Sequence[float]]]


def clear(client: Client) -> None:
    """Forget what was noted."""
    for file in _folder(client).glob("*"):
        file.unlink()


def read(client: Client) -> Stamps:
    """What was noted since."""
    times: dict[tuple[int, int], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for file in _folder(client).glob("*"):
        for line in file.read_text("utf-8").splitlines():
            stamp: dict[str, Any] = json.loads(line)
            times[stamp["epoch"], stamp["slot"]][stamp["what"] == "end"].append(stamp["at"])
    return {key: (sorted(begun), sorted(ended)) for key, (begun, ended) in times.items()}


def first_batch(client: Client, *, within_s: float = 120.0) -> float:
    """When the first batch of all began; waits for it.

    Raises:
        TimeoutError: It has not begun in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        begun = [at for starts, _ in read(client).values() for at in starts]
        if begun:
            return min(begun)
        time.sleep(0.02)
    raise TimeoutError(f"no batch within {within_s:.0f} s")


def _folder(client: Client) -> Path:
    return client.settings.home / "stamps"
