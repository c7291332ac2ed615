"""The demand of a pool, and who is in it, read from its servers."""

from typing import TYPE_CHECKING

from brokers.connections import broker_client
from brokers.settings import mask_url
from brokers.workload import read_waiting, read_workload
from kubeml.demand import QueueDemand, queue_demands
from kubeml.pending import Staffing

if TYPE_CHECKING:
    from kubeml.client import Client


def read_demand(client: "Client") -> list[QueueDemand]:
    """The demand of every queue; see ``Client.demand``."""
    now = read_workload(client.redis, where=client.where)
    broker = broker_client(client.settings)
    try:
        waiting = read_waiting(broker, where=mask_url(client.settings.broker_url))
    finally:
        broker.close()
    return queue_demands(now, waiting)


def read_staffing(client: "Client") -> Staffing:
    """Who is in the pool, and how many of them have something to do."""
    now = read_workload(client.redis, where=client.where)
    return Staffing.of(now.jobs, now.nodes)
