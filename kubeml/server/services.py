"""What all keepers of a parameter server work with."""

from dataclasses import dataclass

from kubeml.backends import Backends
from kubeml.metrics.job_books import JobBooks
from kubeml.server.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a keeper works with; shared by all keepers of a process."""

    backends: Backends
    sharing: Sharing
    name: str
    books: JobBooks
