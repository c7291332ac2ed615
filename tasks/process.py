"""The one ``Worker`` of a child process, made after the fork and kept from task to task."""

import logging
from functools import lru_cache

from kubeml.worker import Worker
from tasks.app import settings

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def this_worker() -> Worker:
    """This process's connections and caches."""
    return Worker(settings)


def warm_up() -> None:
    """Import what every job needs, so that the first one does not wait for it."""
    import torch

    import kubeml.runtime  # noqa: F401 - imported for its side effect on sys.modules

    torch.set_num_threads(settings.torch_threads)
    this_worker()
    logger.info("ready for work")
