"""The one place that maps redis-py's and kombu's errors to kubeml's."""

from collections.abc import Iterator
from contextlib import contextmanager

from brokers.errors import BackendRefused, BackendUnreachable, brief


@contextmanager
def redis_errors(where: str) -> Iterator[None]:
    """Map redis-py's and kombu's errors to kubeml's, naming the server at ``where``."""
    # Imported here: `kubeml --help` must not pay for the client libraries.
    import kombu.exceptions
    import redis.exceptions as rexc

    try:
        yield
    except (rexc.ConnectionError, rexc.TimeoutError, kombu.exceptions.OperationalError) as err:
        if isinstance(err, rexc.AuthenticationError):
            raise BackendRefused(backend="redis", where=where, detail=str(err)) from err
        raise BackendUnreachable(backend="redis", where=where, detail=brief(err)) from err
    except rexc.RedisError as err:
        raise BackendRefused(backend="redis", where=where, detail=brief(err)) from err
