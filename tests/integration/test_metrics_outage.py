"""Metrics while servers are away or hang, and while the port is taken."""

import logging
import socket
import threading
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from brokers.pool.presence import announce
from brokers.settings import Secret, Settings
from kubeml.backends import Backends
from kubeml.metrics.exporter import serve_control
from kubeml.metrics.pool_collector import PoolCollector
from kubeml.metrics.scheduler_book import SchedulerBook
from kubeml.stack.servers import free_ports
from tests.cluster import on_database
from tests.eventually import eventually
from tests.scrape import Exporter, Scrape, parse, value

AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
def settings(s3_settings: Settings) -> Settings:
    return on_database(s3_settings, 8)


def scrape(settings: Settings) -> Scrape:
    with Backends(settings) as backends:
        registry = CollectorRegistry()
        registry.register(PoolCollector(backends))
        return parse(generate_latest(registry).decode())


def up(now: Scrape) -> dict[str, float | None]:
    return {
        server: value(now, "kubeml_server_up", server=server)
        for server in ("state", "broker", "s3")
    }


def test_broker_and_s3_that_are_away_cost_their_own_values(settings: Settings) -> None:
    broken = settings.with_changes(
        broker_url=Secret(AWAY), s3_endpoint_url="http://127.0.0.1:1", s3_access_key=Secret("a"),
        s3_secret_key=Secret("b"),
    )  # fmt: skip
    with Backends(settings) as backends:
        announce(backends.redis, "ps-test", "ps")

    well, broken_now = scrape(settings), scrape(broken)

    assert up(well) == {"state": 1, "broker": 1, "s3": 1}
    assert up(broken_now) == {"state": 1, "broker": 0, "s3": 0}
    assert value(broken_now, "kubeml_nodes", role="ps", device="cpu") == 1
    assert value(broken_now, "kubeml_job_running_total", type="train") == 0
    assert value(broken_now, "kubeml_server_memory_bytes", server="state")
    assert value(well, "kubeml_queue_wanted_workers", queue="kubeml.train.cpu") == 0
    # An autoscaler must not take an outage for a pool that nobody wants.
    assert value(broken_now, "kubeml_queue_wanted_workers", queue="kubeml.train.cpu") is None


def test_missing_bucket_is_an_s3_that_is_down(settings: Settings) -> None:
    assert up(scrape(settings.with_changes(s3_bucket="no-such-bucket")))["s3"] == 0


def test_servers_that_hang_cost_three_seconds_and_no_more_threads(settings: Settings) -> None:
    with socket.socket() as silent:
        # Connections are taken, and nothing is ever said.
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        port = silent.getsockname()[1]
        url = Secret(f"redis://127.0.0.1:{port}/0")
        hanging = settings.with_changes(
            broker_url=url, state_url=url, s3_endpoint_url=f"http://127.0.0.1:{port}"
        )
        backends = Backends(hanging)
        registry = CollectorRegistry()
        registry.register(PoolCollector(backends))
        started = time.monotonic()
        first = parse(generate_latest(registry).decode())
        took_s = time.monotonic() - started
        again = parse(generate_latest(registry).decode())
        num_probes = len(probes())

    assert up(first) == up(again) == {"state": 0, "broker": 0, "s3": 0}
    assert took_s < 4.5
    assert 1 <= num_probes <= 3
    eventually(lambda: not probes(), within_s=30, what="end of the probes")
    backends.close()


def probes() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kubeml-read"]


def test_port_that_is_taken_is_named_once_and_had_later(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    exporter = Exporter(port)
    book = SchedulerBook()
    book.note_plan("static", 0, 2, 0.1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        serve_control(settings.with_changes(metrics_port=port), book)
        complaints = eventually(
            lambda: [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR],
            within_s=10, what="word of it",
        )  # fmt: skip

    eventually(exporter.is_up, within_s=10, what="metrics on the port")
    plans = value(exporter.read(), "kubeml_scheduler_plans_total", policy="static", change="first")
    assert plans == 1
    assert f"127.0.0.1:{port}" in complaints[0]
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
