"""Names of the queues. It imports nothing, for processes that only look."""

#: The devices that a worker may have. Each kind of worker serves queues of its own.
DEVICES = ("cpu", "gpu")

#: Where control workers find the jobs to plan, and parameter servers their hints.
CONTROL_QUEUE, PS_QUEUE = "kubeml.control", "kubeml.ps"


def train_queue(device: str) -> str:
    """Return the queue of a kind of worker: ``kubeml.train.cpu`` or ``kubeml.train.gpu``."""
    return f"kubeml.train.{device}"


def first_queue(device: str) -> str:
    """Return the queue where a new job's first dispatch waits; it goes before other training."""
    return f"kubeml.first.{device}"


def infer_queue(device: str) -> str:
    """Return the queue of inference on a kind of worker, which serves it before training."""
    return f"kubeml.infer.{device}"


def worker_queues(device: str) -> tuple[str, str, str]:
    """Return the queues that a kind of worker serves, the most urgent one first.

    First come answers that a client waits for, then jobs that had no worker yet, then the rest.
    """
    return infer_queue(device), first_queue(device), train_queue(device)
