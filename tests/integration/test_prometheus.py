"""A real Prometheus: it reads the alert rules, scrapes a pool, and answers the dashboard's queries.

It is no Python package: ``apt install prometheus`` brings ``prometheus`` and ``promtool``.
"""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brokers.settings import Settings
from kubeml.stack.servers import free_ports
from tests.cluster import on_database
from tests.eventually import eventually
from tests.integration.conftest import wait_for_round
from tests.measured_pool import MeasuredPool, put_functions, running_pool
from tests.processes import end, start_server

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")),
        reason="there is no Prometheus here: apt install prometheus",
    ),
]

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "k8s/monitoring/alerts.yaml"
BOARD = ROOT / "k8s/monitoring/grafana/kubeml.json"

#: Panels about what does not happen to a healthy job; they are checked for errors alone.
_QUIET = {"Attempts that came to nothing", "Epochs planned"}


def promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


def test_every_alert_fires_on_what_it_is_about_and_none_on_a_pool_that_is_well(
    tmp_path: Path,
) -> None:
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(Path(__file__).parent / "alerts.test.yaml", tmp_path)

    checked = promtool("check", "rules", str(tmp_path / "alerts.yaml"))
    tried = promtool("test", "rules", str(tmp_path / "alerts.test.yaml"))

    assert checked.returncode == 0, checked.stderr
    assert tried.returncode == 0, tried.stdout + tried.stderr
    names = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    tests = (tmp_path / "alerts.test.yaml").read_text()
    assert names == set(re.findall(r'alertname="(\w+)"', tests))


@pytest.fixture(scope="module")
def pool(s3_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredPool]:
    home = tmp_path_factory.mktemp("prometheus-pool")
    yield from running_pool(on_database(s3_settings, 7).with_changes(home=home))


class Prometheus:
    """A server of this test's own, which scrapes a pool every second."""

    def __init__(self, pool: MeasuredPool, folder: Path) -> None:
        (self.port,) = free_ports(1)
        shutil.copy(ALERTS, folder)
        targets = [f"127.0.0.1:{e.port}" for e in (pool.ps, pool.control, *pool.workers)]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [{"job_name": "kubeml", "static_configs": [{"targets": targets}]}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.log = folder / "log"
        self.process = start_server(
            [
                "prometheus", f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            self.log,
        )  # fmt: skip

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def is_scraping(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            targets = self.get("targets")["activeTargets"]
        except OSError:
            return False
        return [target["health"] for target in targets] == ["up"] * 4


@pytest.fixture
def prometheus(pool: MeasuredPool, tmp_path: Path) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    server = Prometheus(pool, folder)
    try:
        eventually(server.is_scraping, within_s=30, what="scrape of all four")
        yield server
    finally:
        end(server.process)


def test_prometheus_scrapes_the_pool_and_answers_the_dashboard(
    pool: MeasuredPool, prometheus: Prometheus, tmp_path: Path
) -> None:
    client = pool.cluster.client
    (tmp_path / "code").mkdir()
    put_functions(client, tmp_path / "code")
    job = client.train(
        "slow", "measured", epochs=100, batch_size=16, lr=0.05, k=4, static=True, parallelism=2
    )
    wait_for_round(job, epoch=3)
    board = json.loads(BOARD.read_text())
    targets = [
        (panel["title"], target["expr"].replace("$__rate_interval", "10s").replace("$jobid", ".+"))
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]

    def unanswered() -> list[tuple[str, str]]:
        return [
            (title, expr)
            for title, expr in targets
            if not prometheus.ask(expr) and title not in _QUIET and "limit_bytes" not in expr
        ]

    eventually(lambda: not unanswered(), within_s=30, what="an answer to every query")

    for title, expr in targets:
        if title in _QUIET:
            prometheus.ask(expr)
    (told,) = prometheus.ask("max by (jobid) (kubeml_job_train_loss)")
    assert told["metric"]["jobid"] == job.id
    losses = {row.train_loss for row in job.history()}
    assert float(told["value"][1]) in losses
    lint = promtool("check", "metrics", stdin=pool.ps.text())
    # KubeML's name for a gauge.
    assert set(lint.stdout.splitlines() + lint.stderr.splitlines()) == {
        'kubeml_job_running_total non-counter metrics should not have "_total" suffix'
    }
    job.stop()
    firing = prometheus.ask('ALERTS{alertstate="firing"}')
    assert firing == []


def test_failed_job_is_alerted_of(
    pool: MeasuredPool, prometheus: Prometheus, tmp_path: Path
) -> None:
    client = pool.cluster.client
    code = tmp_path / "raises"
    code.mkdir()
    folder = ROOT / "tests/functions"
    shutil.copy(folder / "raises.py", code)
    tiny = (folder / "tiny.py").read_text().split("def main")[0]
    (code / "tiny.py").write_text(tiny)
    client.functions.create("raises", code, check=False)

    job = client.train("raises", "measured", epochs=2, batch_size=16, lr=0.05, static=True)

    def alert() -> list[dict[str, Any]]:
        return prometheus.ask('ALERTS{alertname="KubemlJobFailed",alertstate="firing"}')

    (fired,) = eventually(alert, within_s=60, what="alert for the failed job")
    assert fired["metric"]["jobid"] == job.id
