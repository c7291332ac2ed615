"""How many slots the next epoch gets: policies as pure functions of the history.

situation    what a policy decides by, and a decision
simple       ``static``, and KubeML's ``throughput``
efficiency   the default: as many slots as are worth their workers, or as a deadline needs
epoch_model  how long an epoch takes with N slots on W workers
goodput      what a sample is worth with N slots
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from kubeml.scheduling.policies.efficiency import efficiency
from kubeml.scheduling.policies.epoch_model import EpochModel
from kubeml.scheduling.policies.simple import static, throughput
from kubeml.scheduling.policies.situation import Decision, Pool, Situation

__all__ = ["LOOKS_BACK", "POLICIES", "Decision", "Pool", "Situation", "decide"]

Policy = Callable[[Situation], Decision]

POLICIES: Mapping[str, Policy] = {
    "efficiency": efficiency,
    "throughput": throughput,
    "static": static,
}

#: How many epochs each looks at (and those that do not model them, for what they expect).
LOOKS_BACK: Mapping[str, int] = {"efficiency": 32, "throughput": 4, "static": 4}


def decide(policy: str, now: Situation) -> Decision:
    """What a policy decides, and how long the epoch should take then."""
    decision = POLICIES[policy](now)
    model = EpochModel.fit(now.history, num_rows=now.num_rows, batch_size=now.batch_size, k=now.k)
    if model is None or not now.pool.capacity:
        return decision
    expected_s = model.epoch_s(decision.parallelism, now.pool.usable)
    return replace(decision, expected_s=expected_s)
