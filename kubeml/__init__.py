"""kubeml: train PyTorch networks, data-parallel, on machines that come and go.

What users need is imported from here. All other modules are private and may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brokers.rounds.events import Event, LogLine
    from brokers.settings import Settings
    from brokers.shards.manifest import DatasetManifest
    from kubeml.analysis.audit import EpochAudit, JobAudit
    from kubeml.analysis.explain import EpochTimes, JobTimes
    from kubeml.catalog.functions import FunctionInfo
    from kubeml.catalog.upload import DataWarning
    from kubeml.client.client import Client
    from kubeml.client.job import Job
    from kubeml.errors import (
        BackendRefused,
        BackendUnreachable,
        BucketMissing,
        BufferConflict,
        ChunksMissing,
        Conflict,
        Corrupted,
        DatasetNotFound,
        FunctionNotFound,
        Interrupted,
        InvalidDataset,
        InvalidFunction,
        InvalidOption,
        InvalidSetting,
        JobFailed,
        JobNotFound,
        JobStopped,
        KubemlError,
        LayoutMismatch,
        MalformedMessage,
        MergeRefused,
        NameTaken,
        NonFinite,
        NotFound,
        ObjectExists,
        ObjectMissing,
        OutcomeUnknown,
        TimedOut,
        UserCodeError,
    )
    from kubeml.jobs.results import EpochRow, JobEnd, JobStatus
    from kubeml.jobs.scale import Scale
    from kubeml.jobs.spec import JobSpec, State
    from kubeml.pool.demand import QueueDemand
    from kubeml.pool.view import PoolView
    from kubeml.sdk.dataset import KubeDataset
    from kubeml.sdk.model import KubeModel

__all__ = [
    "BackendRefused",
    "BackendUnreachable",
    "BucketMissing",
    "BufferConflict",
    "ChunksMissing",
    "Client",
    "Conflict",
    "Corrupted",
    "DataWarning",
    "DatasetManifest",
    "DatasetNotFound",
    "EpochAudit",
    "EpochRow",
    "EpochTimes",
    "Event",
    "FunctionInfo",
    "FunctionNotFound",
    "Interrupted",
    "InvalidDataset",
    "InvalidFunction",
    "InvalidOption",
    "InvalidSetting",
    "Job",
    "JobAudit",
    "JobEnd",
    "JobFailed",
    "JobNotFound",
    "JobSpec",
    "JobStatus",
    "JobStopped",
    "JobTimes",
    "KubeDataset",
    "KubeModel",
    "KubemlError",
    "LayoutMismatch",
    "LogLine",
    "MalformedMessage",
    "MergeRefused",
    "NameTaken",
    "NonFinite",
    "NotFound",
    "ObjectExists",
    "ObjectMissing",
    "OutcomeUnknown",
    "PoolView",
    "QueueDemand",
    "Scale",
    "Settings",
    "State",
    "TimedOut",
    "UserCodeError",
]

#: Where each name is that is no error; the errors are all in ``kubeml.errors``.
_HOMES = {
    "Client": "kubeml.client.client",
    "DataWarning": "kubeml.catalog.upload",
    "DatasetManifest": "brokers.shards.manifest",
    "EpochAudit": "kubeml.analysis.audit",
    "EpochRow": "kubeml.jobs.results",
    "EpochTimes": "kubeml.analysis.explain",
    "Event": "brokers.rounds.events",
    "FunctionInfo": "kubeml.catalog.functions",
    "Job": "kubeml.client.job",
    "JobAudit": "kubeml.analysis.audit",
    "JobEnd": "kubeml.jobs.results",
    "JobSpec": "kubeml.jobs.spec",
    "JobStatus": "kubeml.jobs.results",
    "JobTimes": "kubeml.analysis.explain",
    "KubeDataset": "kubeml.sdk.dataset",
    "KubeModel": "kubeml.sdk.model",
    "LogLine": "brokers.rounds.events",
    "PoolView": "kubeml.pool.view",
    "QueueDemand": "kubeml.pool.demand",
    "Scale": "kubeml.jobs.scale",
    "Settings": "brokers.settings",
    "State": "kubeml.jobs.spec",
}


def __getattr__(name: str) -> Any:
    # Lazy: torch takes seconds to import, and the CLI and the parameter server need none of it.
    if name not in __all__:
        raise AttributeError(f"module 'kubeml' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "kubeml.errors")), name)


def __dir__() -> list[str]:
    return __all__
