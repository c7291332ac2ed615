"""The Celery app of workers and control workers. What their processes do is in ``lifecycle``."""

from multiprocessing.sharedctypes import RawValue

from brokers.messages.topology import make_app
from brokers.settings import Settings
from kubeml.machine import memory_limit

settings = Settings.load()
app = make_app(settings, name="kubeml-worker")
# First lifecycle: its signals are connected before Celery says anything.
app.conf.include = ["tasks.lifecycle", "tasks.worker", "tasks.schedule"]
# What a function leaks is given back with its process, between two tasks.
app.conf.worker_max_memory_per_child = memory_limit(settings) // 1024

# In memory that children share, without a lock that one of them could die with.
_draining = RawValue("b", 0)


def is_draining() -> bool:
    """Whether this worker was told to go; seen in its children too."""
    return bool(_draining.value)


def drain() -> None:
    """Tell this worker, and its children, to go."""
    _draining.value = 1
