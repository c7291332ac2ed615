"""How many workers there should be, given how many were wanted lately. Pure.

Source: the stabilisation window of Kubernetes' HorizontalPodAutoscaler: the largest number that was
wanted within the window counts. So growth is immediate, and a short lull shrinks nothing.
"""

import math
from collections import deque

#: Looks are a few seconds apart at most, however short the window is.
_BLIND_S = 5.0


class Autoscaler:
    """Between two bounds: grows at once, shrinks to what was wanted at most for ``idle_s``.

    Args:
        low, high: The bounds, ``0 <= low <= high``.
        idle_s: How long a worker is kept that nobody wants.
    """

    def __init__(self, *, low: int, high: int, idle_s: float) -> None:
        self.low, self.high, self.idle_s = low, high, idle_s
        #: (when, how many), ever later and ever fewer: what came before a larger one is forgotten.
        self._wanted: deque[tuple[float, int]] = deque()
        self._goal = low
        self._looked_at = math.inf

    def goal(self, wanted: int, now: float) -> int:
        """How many workers there should be.

        Args:
            wanted: How many are wanted now, bounds or no bounds. While that is not known, as many
                as there are: then nothing shrinks for lack of news.
            now: Seconds of a clock that does not go back.
        """
        bounded = min(self.high, max(self.low, wanted))
        if now - self._looked_at > self.idle_s + _BLIND_S:
            # Nobody looked for all that time: that is no sign that nobody wanted them.
            bounded = max(bounded, self._goal)
        self._looked_at = now
        while self._wanted and self._wanted[-1][1] <= bounded:
            self._wanted.pop()
        self._wanted.append((now, bounded))
        while now - self._wanted[0][0] > self.idle_s:
            self._wanted.popleft()
        self._goal = self._wanted[0][1]
        return self._goal
