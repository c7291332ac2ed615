"""kubeml: train PyTorch networks, data-parallel, on machines that come and go."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubeml.client.client import Client
    from kubeml.client.job import Job
    from kubeml.errors import KubemlError
    from kubeml.sdk.dataset import KubeDataset
    from kubeml.sdk.model import KubeModel

__all__ = ["Client", "Job", "KubeDataset", "KubeModel", "KubemlError"]

_HOMES = {
    "Client": "kubeml.client.client",
    "Job": "kubeml.client.job",
    "KubeDataset": "kubeml.sdk.dataset",
    "KubeModel": "kubeml.sdk.model",
    "KubemlError": "kubeml.errors",
}


def __getattr__(name: str) -> Any:
    # Lazy: torch takes seconds to import, and the CLI and the parameter server need none of it.
    if name not in _HOMES:
        raise AttributeError(f"module 'kubeml' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
