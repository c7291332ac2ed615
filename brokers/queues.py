"""Names of the queues that workers serve. Imports nothing, for processes that only look."""

#: What a worker may have; each kind of worker serves queues of its own.
DEVICES = ("cpu", "gpu")


def train_queue(device: str) -> str:
    """The queue of a kind of worker: ``kubeml.train.cpu`` or ``kubeml.train.gpu``."""
    return f"kubeml.train.{device}"


def infer_queue(device: str) -> str:
    """The queue of inference on a kind of worker; served before training by the same workers."""
    return f"kubeml.infer.{device}"
