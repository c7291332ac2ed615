"""Names of the queues. Imports nothing, for processes that only look."""

#: What a worker may have; each kind of worker serves queues of its own.
DEVICES = ("cpu", "gpu")

#: Where control workers find the jobs to plan, and parameter servers their hints.
CONTROL_QUEUE, PS_QUEUE = "kubeml.control", "kubeml.ps"


def train_queue(device: str) -> str:
    """The queue of a kind of worker: ``kubeml.train.cpu`` or ``kubeml.train.gpu``."""
    return f"kubeml.train.{device}"


def first_queue(device: str) -> str:
    """Where a new job's first dispatch waits; served before all other training."""
    return f"kubeml.first.{device}"


def infer_queue(device: str) -> str:
    """The queue of inference on a kind of worker; served before training by the same workers."""
    return f"kubeml.infer.{device}"


def worker_queues(device: str) -> tuple[str, str, str]:
    """The queues that a kind of worker serves, the most urgent one first.

    An answer that somebody waits for, a job that has had nobody yet, the rest.
    """
    return infer_queue(device), first_queue(device), train_queue(device)
