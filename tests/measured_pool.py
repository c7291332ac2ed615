"""A pool of real processes that serve metrics and log JSON."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brokers.settings import Settings
from kubeml.client.client import Client
from kubeml.stack.servers import free_ports
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.integration.conftest import FUNCTIONS, put_function, put_points
from tests.scrape import Exporter

#: Rows of the dataset ``measured``.
ROWS = 1200


@dataclass
class MeasuredPool:
    """One parameter server, one control worker, two workers, and room for a second server."""

    cluster: Cluster
    ps: Exporter
    second: Exporter
    control: Exporter
    workers: list[Exporter]

    def start_ps(self, name: str, exporter: Exporter) -> None:
        """One parameter server."""
        self.cluster.start_ps(name, env=_env(exporter))
        eventually(exporter.is_up, within_s=30, what=f"metrics of {name}")

    def start_worker(self, number: int) -> None:
        """One training worker; does not wait for it."""
        name = f"worker-{number + 1}"
        self.cluster.start_worker(name, env=_env(self.workers[number]), wait=False)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A process's log lines; each must be JSON."""
        return [json.loads(line) for line in self.cluster.log(name).splitlines()]


def running_pool(settings: Settings) -> Iterator[MeasuredPool]:
    """The pool, with the dataset ``measured``, for the length of a fixture."""
    # A bucket of its own: other files of the run have functions and datasets of the same names.
    cluster = Cluster(settings.with_changes(s3_bucket=f"measured-{uuid.uuid4().hex[:8]}"))
    exporters = [Exporter(port) for port in free_ports(5)]
    made = MeasuredPool(cluster, exporters[0], exporters[1], exporters[2], exporters[3:])
    try:
        made.start_worker(0)
        made.start_worker(1)
        cluster.start_control(env=_env(made.control))
        made.start_ps("ps", made.ps)
        for exporter in (made.control, *made.workers):
            eventually(exporter.is_up, within_s=60, what=f"metrics on port {exporter.port}")
        put_points(cluster.client, rows=ROWS, name="measured")
        yield made
    finally:
        cluster.close()


def put_functions(client: Client, folder: Path) -> None:
    """``tiny``, ``slow`` and ``flaky``; the last one raises once."""
    for name in ("tiny", "slow", "flaky"):
        (folder / name).mkdir()
    for name in ("tiny", "slow"):
        put_function(client, name, folder / name)
    text = (FUNCTIONS / "flaky.py").read_text().replace("@MARKER@", str(folder / "marker"))
    (folder / "flaky" / "flaky.py").write_text(text)
    tiny = (FUNCTIONS / "tiny.py").read_text().split("def main")[0]
    (folder / "flaky" / "tiny.py").write_text(tiny)
    client.functions.create("flaky", folder / "flaky", check=False)


def _env(exporter: Exporter) -> dict[str, str]:
    return {"KUBEML_METRICS_PORT": str(exporter.port)}
