"""What a control worker has decided, in numbers, for its metrics. Pure."""

from collections import Counter

from kubeml.jobs.options import POLICIES
from kubeml.metrics.histogram import Histogram

#: How N of an epoch compares with N of the epoch before.
CHANGES = ("first", "same", "up", "down")


class SchedulerBook:
    """The epochs a control worker has planned since its start.

    Attributes:
        plans: (policy, change of N) to the number of epochs.
        plan_seconds: How long it took from the request to the plan.
    """

    def __init__(self) -> None:
        names = (*POLICIES, "static")
        self.plans = Counter({(policy, change): 0 for policy in names for change in CHANGES})
        self.plan_seconds = Histogram()

    def note_plan(self, policy: str, before: int, slots: int, took_s: float) -> None:
        """Note an epoch that was planned.

        Args:
            policy: The policy that chose N.
            before: N of the epoch before; 0 if there is none to compare with.
            slots: N of this epoch.
            took_s: See ``plan_seconds``.
        """
        if not before:
            change = "first"
        else:
            change = "same" if slots == before else "up" if slots > before else "down"
        self.plans[policy, change] += 1
        self.plan_seconds.observe(took_s)
