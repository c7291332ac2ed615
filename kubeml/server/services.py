"""What all keepers of a parameter server work with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from brokers.messages.dispatch import Dispatcher
from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from kubeml.metrics.job_books import JobBooks
from kubeml.server.sharing import Sharing

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a keeper works with; shared by all keepers of a process."""

    settings: Settings
    client: "Redis"
    broker: "Redis"
    objects: ObjectStore
    dispatcher: Dispatcher
    sharing: Sharing
    name: str
    books: JobBooks
