"""Reads what a pool's queues want, and who is there, in one trip each.

Apart from ``watch``, which needs numpy for its picture: every command that lists jobs reads this.
"""

from brokers.pool.workload import read_waiting, read_workload
from kubeml.backends import Backends
from kubeml.pool.demand import QueueDemand, queue_demands
from kubeml.pool.pending import Staffing


def read_demand(backends: Backends) -> list[QueueDemand]:
    """Return the demand of every queue; see ``Client.demand``."""
    now = read_workload(backends.redis, where=backends.where)
    waiting = read_waiting(backends.broker, where=backends.broker_where)
    return queue_demands(now, waiting)


def read_staffing(backends: Backends) -> Staffing:
    """Return who is in the pool, and how many of them are busy."""
    now = read_workload(backends.redis, where=backends.where)
    return Staffing.of(now.jobs, now.nodes)
