"""kubeml: train PyTorch networks, data-parallel, on machines that come and go."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubeml.client import Client
    from kubeml.dataset import KubeDataset
    from kubeml.errors import KubemlError
    from kubeml.model import KubeModel
    from kubeml.training_job import Job

__all__ = ["Client", "Job", "KubeDataset", "KubeModel", "KubemlError"]

_HOMES = {
    "Client": "kubeml.client",
    "Job": "kubeml.training_job",
    "KubeDataset": "kubeml.dataset",
    "KubeModel": "kubeml.model",
    "KubemlError": "kubeml.errors",
}


def __getattr__(name: str) -> Any:
    # Lazy: torch takes seconds to import, and the CLI and the parameter server need none of it.
    if name not in _HOMES:
        raise AttributeError(f"module 'kubeml' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
