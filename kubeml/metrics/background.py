"""Read a server that may hang, without waiting for longer than a scrape may take."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from kubeml.errors import KubemlError

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: A reading is good for this long: several Prometheus servers may scrape at the same time.
_FRESH_S = 1.0


class BackgroundRead(Generic[T]):
    """Calls ``read`` in a thread, one call at a time. Safe to share between threads."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen: T | None = None
        self._seen_at = float("-inf")

    def begin(self) -> None:
        """Begin a reading, unless one is under way or was done a moment ago."""
        with self._guard:
            is_fresh = time.monotonic() - self._seen_at < _FRESH_S
            if is_fresh or (self._thread is not None and self._thread.is_alive()):
                return
            # A daemon thread: a call that hangs must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="kubeml-read", daemon=True)
            self._thread.start()

    def result(self, deadline: float) -> T | None:
        """Return the reading; None if it failed, or is not there by ``deadline`` (monotonic)."""
        thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return None
        return self._seen

    def _run(self) -> None:
        try:
            self._seen = self._read()
        except KubemlError as err:
            # The caller sees that it failed; the process's real work reports the outage itself.
            logger.debug("not seen: %s", err)
            self._seen = None
        except Exception:  # the border of a thread: a metric is missing, nothing more
            logger.exception("a metric cannot be read")
            self._seen = None
        self._seen_at = time.monotonic()
