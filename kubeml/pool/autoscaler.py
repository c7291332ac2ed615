"""How many workers there should be, given how many were wanted lately. Pure.

The embedded stack's worker pool goes by it. Source: the stabilisation window of Kubernetes'
HorizontalPodAutoscaler. The largest number that was wanted within the window counts: so growth is
immediate, and a short lull shrinks nothing.
"""

import math
from collections import deque

#: The demand is read at least this often, however short the window is.
_BLIND_S = 5.0


class Autoscaler:
    """A number of workers between two bounds.

    It grows at once. It shrinks to the largest number that was wanted in the last ``idle_s``.

    Args:
        low, high: The bounds, ``0 <= low <= high``.
        idle_s: How long an unwanted worker is kept.
    """

    def __init__(self, *, low: int, high: int, idle_s: float) -> None:
        self.low, self.high, self.idle_s = low, high, idle_s
        #: Pairs (when, how many). Times rise and numbers fall: a larger number makes us forget the
        #: smaller ones before it.
        self._wanted: deque[tuple[float, int]] = deque()
        self._goal = low
        self._looked_at = math.inf

    def goal(self, wanted: int, now: float) -> int:
        """Return how many workers there should be.

        Args:
            wanted: How many are wanted now, whatever the bounds. While that is unknown, pass the
                number of workers there are: then nothing shrinks for lack of news.
            now: Seconds of a clock that does not go back.
        """
        bounded = min(self.high, max(self.low, wanted))
        if now - self._looked_at > self.idle_s + _BLIND_S:
            # The demand was not read for all that time, which is no sign that there was none.
            bounded = max(bounded, self._goal)
        self._looked_at = now
        while self._wanted and self._wanted[-1][1] <= bounded:
            self._wanted.pop()
        self._wanted.append((now, bounded))
        while now - self._wanted[0][0] > self.idle_s:
            self._wanted.popleft()
        self._goal = self._wanted[0][1]
        return self._goal
