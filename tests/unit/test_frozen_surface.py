"""The names that others rely on change only together with a line in CHANGELOG.md."""

from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import kubeml
from brokers.messages.topology import celery_config, ps_queue
from brokers.pool.live_job import Workload
from brokers.pool.node import Node
from brokers.rounds.events import LogLine
from brokers.settings import Settings
from brokers.shards.manifest import DatasetManifest, ShardInfo, SplitInfo
from kubeml import errors
from kubeml.analysis.audit import JobAudit
from kubeml.analysis.explain import JobTimes
from kubeml.catalog.functions import FunctionInfo
from kubeml.cli.app import app
from kubeml.jobs.results import EpochRow, JobStatus
from kubeml.jobs.scale import Scale
from kubeml.metrics.job_books import JobBooks
from kubeml.metrics.pool_collector import BrokerFacts, PoolCollector, ServerHealth, StateFacts
from kubeml.metrics.role_collectors import ControlCollector, JobCollector, WorkerCollector
from kubeml.metrics.scheduler_book import SchedulerBook
from kubeml.metrics.worker_book import WorkerBook
from kubeml.ops.chaos.report import ChaosReport
from kubeml.ops.doctor import Finding
from kubeml.pool.demand import QueueDemand
from kubeml.pool.view import PoolView
from kubeml.stack.stack import StackStatus
from tests.surface import (
    command_lines,
    commands_with,
    document_lines,
    frozen_digest,
    require_frozen,
    samples,
    unreleased,
)


def test_commands_and_flags() -> None:
    require_frozen("commands", command_lines(app))


def test_fields_of_json_documents() -> None:
    documents = {
        command: [[one] if is_list else one for one in wires]
        for command, (is_list, wires) in json_documents().items()
    }

    assert set(documents) == commands_with("--json", app)
    lines = [line for name, all_ in documents.items() for line in document_lines(name, *all_)]
    require_frozen("documents", lines)


def test_metrics_and_their_labels() -> None:
    collectors = (
        JobCollector(JobBooks(), "ps", None, lambda: PoolView(at=0.0)),  # type: ignore[arg-type]
        WorkerCollector(WorkerBook()),
        ControlCollector(SchedulerBook()),
        IdlePool(kubeml.Client(Settings(home=Path("HOME")))),
    )

    families = [family for collector in collectors for family in collector.collect()]

    require_frozen(
        "metrics",
        [f"{f.name} {f.type} {{{', '.join(f._labelnames)}}}" for f in families],
    )


def test_tasks_queues_settings_and_exit_codes() -> None:
    from tasks.app import app as celery_app  # reads the settings as it is imported

    celery_app.loader.import_default_modules()
    settings = Settings(home=Path("HOME"))
    queues = [*celery_config(settings)["task_queues"], ps_queue()]

    require_frozen(
        "names",
        [
            *(f"task {name}" for name in celery_app.tasks if not name.startswith("celery.")),
            *(f"queue {queue.name}" for queue in queues),
            *(f"setting KUBEML_{line}" for line in setting_lines(settings)),
            *(f"exit {line}" for line in exit_lines()),
            *(f"from kubeml import {name}" for name in kubeml.__all__),
            *(f"from kubeml.errors import {name}" for name in errors.__all__),
        ],
    )


def test_changelog_quotes_the_digest() -> None:
    assert f"`{frozen_digest()}`" in unreleased(), (
        "names that others rely on have changed. Tell users of it in CHANGELOG.md, under "
        f"[Unreleased], and end that section with the line\n\nSurface: `{frozen_digest()}`"
    )


def json_documents() -> dict[str, tuple[bool, list[Any]]]:
    """Each command that has ``--json``, whether it prints a list, and samples of what of."""
    status = [job.to_wire() for job in samples(JobStatus)]
    stack = [one.to_wire() for one in samples(StackStatus)]
    function = [one.to_wire() for one in samples(FunctionInfo)]
    dataset = [sample_manifest().to_wire()]
    demand, node = (samples(kind)[0] for kind in (QueueDemand, Node))
    documents: dict[str, tuple[bool, list[Any]]] = {
        "train": (False, status),
        "task show": (False, status),
        "task list": (True, status),
        "task scale": (False, [one.to_wire() for one in samples(Scale)]),
        "task audit": (False, [one.to_wire() for one in samples(JobAudit)]),
        "task explain": (False, [one.to_wire() for one in samples(JobTimes)]),
        "history list": (True, status),
        "history get": (True, [one.to_wire() for one in samples(EpochRow)]),
        "logs": (False, [one.to_wire() for one in samples(LogLine)]),
        "dataset create": (False, dataset),
        "dataset list": (True, dataset),
        "dataset show": (False, dataset),
        "top": (False, [one.to_wire() for one in samples(PoolView)]),
        "doctor": (True, [one.to_wire() for one in samples(Finding)]),
        "chaos": (False, [one.to_wire() for one in samples(ChaosReport)]),
        "up": (False, stack),
        "status": (
            False, [one | {"demand": [demand.to_wire()], "nodes": [asdict(node)]} for one in stack]
        ),
    }  # fmt: skip
    for noun in ("function", "fn"):
        documents |= {
            f"{noun} create": (False, function),
            f"{noun} update": (False, function),
            f"{noun} list": (True, function),
            f"{noun} show": (False, [one | {"source": {"*": "x"}} for one in function]),
        }
    return documents


def sample_manifest() -> DatasetManifest:
    """A dataset that can be; its bounds allow no others."""
    shard = ShardInfo(
        key="datasets/a/v1/train-00000.safetensors", num_rows=1, num_bytes=1000, sha256="0" * 64
    )
    split = SplitInfo(
        num_rows=1, data_dtype="float32", data_shape=(1,), labels_dtype="int64", labels_shape=(1,),
        shards=(shard,),
    )  # fmt: skip
    return DatasetManifest(name="a", version="v1", created_at=0.5, train=split, test=split)


class IdlePool(PoolCollector):
    """The collector of a pool in which nothing happens, whose servers answer at once."""

    health = ServerHealth(answer_s=0.0, memory_bytes=1, limit_bytes=1, can_write=True)
    workload = Workload(jobs=[], nodes=[])

    def _read_state(self) -> StateFacts:
        return StateFacts(
            health=self.health, workload=self.workload, view=PoolView(at=0.0), refused={}
        )

    def _read_broker(self) -> BrokerFacts:
        return BrokerFacts(health=self.health, queues={}, waiting={})

    def _read_s3(self) -> float:
        return 0.0


def setting_lines(settings: Settings) -> Iterator[str]:
    """Each setting with the type and default of its variable, ``KUBEML_…``."""
    for field in fields(Settings):
        value = getattr(settings, field.name)
        shown = str(value) if isinstance(value, str | Path) else value
        yield f"{field.name.upper()} {type(shown).__name__} = {shown!r}"


def exit_lines() -> Iterator[str]:
    """Each error of ours, and the exit code that a command ends with for it."""
    for name in errors.__all__:
        if issubclass(kind := getattr(errors, name), errors.KubemlError):
            yield f"{kind.exit_code} {name}"
