"""The servers that one process works with, each reached through one client, made in one place."""

from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from brokers.state.connections import broker_client, state_client, watch_client
from brokers.urls import mask_url
from kubeml.catalog.functions import Functions
from kubeml.jobs.checkpoint import Checkpoints
from kubeml.jobs.records import JobRecords

if TYPE_CHECKING:
    from redis import Redis

    from brokers.messages.dispatch import Dispatcher
    from kubeml.catalog.datasets import Datasets


class Backends:
    """State server, broker and bucket, and what reads and writes them.

    A context manager, safe to share between threads. Each client is made when it is first asked
    for, so that a process connects to what it uses, and to nothing before its fork: sockets cannot
    be shared with a child, and every process makes its own ``Backends``.

    Args:
        settings: Where the servers are.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make all clients now, which connects to nothing yet.

        A server does so at its start: a setting that one of them refuses ends it there, and not in
        one of its threads.
        """
        _ = self.redis, self.broker, self.dispatcher, self.objects

    def close(self) -> None:
        """Close the connections that were made."""
        made = self.__dict__
        for name in ("redis", "watch", "broker", "dispatcher"):
            if name in made:
                made[name].close()

    @cached_property
    def redis(self) -> "Redis":
        """The state server's client."""
        return state_client(self.settings)

    @cached_property
    def watch(self) -> "Redis":
        """A client of the state server, for who must not wait long for what it only looks at."""
        return watch_client(self.settings)

    @cached_property
    def broker(self) -> "Redis":
        """The client of the broker's server, for queue lengths."""
        return broker_client(self.settings)

    @cached_property
    def dispatcher(self) -> "Dispatcher":
        """Where messages are sent."""
        # Imported here: celery and kombu cost a tenth of a second, which only senders pay.
        from brokers.messages.dispatch import Dispatcher

        return Dispatcher(self.settings)

    @cached_property
    def objects(self) -> ObjectStore:
        """The bucket."""
        return ObjectStore(self.settings)

    @cached_property
    def records(self) -> JobRecords:
        """The jobs' records."""
        return JobRecords(self.objects)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The jobs' checkpoints."""
        return Checkpoints(self.objects)

    @cached_property
    def functions(self) -> Functions:
        """The functions' catalogue."""
        return Functions(self.objects)

    @cached_property
    def datasets(self) -> "Datasets":
        """The datasets' catalogue."""
        # Imported here: numpy costs a tenth of a second, which not every command needs.
        from kubeml.catalog.datasets import Datasets

        return Datasets(self.objects)

    @property
    def where(self) -> str:
        """Where the state server is, without its password."""
        return mask_url(self.settings.state_url)

    @property
    def broker_where(self) -> str:
        """Where the broker is, without its password."""
        return mask_url(self.settings.broker_url)
