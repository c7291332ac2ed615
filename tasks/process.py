"""The one ``Worker`` of a child process, made after the fork and kept from task to task.

Celery's parent process imports this module and those of the tasks as well, and only passes messages
on. What the work needs is therefore imported where it is done: the parent is smaller by a third.
"""

import logging
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from tasks.app import settings

if TYPE_CHECKING:
    from kubeml.worker import Worker

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def this_worker() -> "Worker":
    """This process's connections and caches."""
    from kubeml.worker import Worker

    return Worker(settings)


def warm_up() -> None:
    """Import what every job needs, so that the first one does not wait for it."""
    import torch

    from kubeml.deferred_compiler import defer_compiler

    defer_compiler()
    # Imported for their side effect on sys.modules.
    import kubeml.participant
    import kubeml.runtime  # noqa: F401

    torch.set_num_threads(settings.torch_threads)
    this_worker()
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    logger.info("ready for work on %s", "a CPU" if settings.device == "cpu" else f"GPU {gpu}")
