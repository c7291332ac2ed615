"""The Celery app of workers and control workers; ``lifecycle`` has what their processes do."""

from multiprocessing.sharedctypes import RawValue

from brokers.messages.topology import make_app
from brokers.settings import Settings
from kubeml.machine import memory_limit

settings = Settings.load()
app = make_app(settings, name="kubeml-worker")
# ``lifecycle`` comes first, so that its signals are connected before Celery logs anything.
app.conf.include = ["tasks.lifecycle", "tasks.worker", "tasks.schedule"]
# Memory that a function leaks is given back when its process is replaced, between two tasks.
app.conf.worker_max_memory_per_child = memory_limit(settings) // 1024

# It lies in memory that children share, without a lock: a child could die holding that.
_draining = RawValue("b", 0)


def is_draining() -> bool:
    """Return whether this worker was told to go; its children see it, too."""
    return bool(_draining.value)


def drain() -> None:
    """Tell this worker, and its children, to go."""
    _draining.value = 1
