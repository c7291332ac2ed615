"""Each role has its own user on Redis and its own credentials on S3, with the least rights."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis.exceptions import NoPermissionError

from brokers.errors import BackendRefused
from brokers.messages.queues import train_queue
from brokers.objects.store import ObjectStore
from brokers.pool.refusals import refusals
from brokers.settings import Secret, Settings
from kubeml.backends import Backends
from kubeml.metrics.pool_collector import PoolCollector
from kubeml.ops.access import ROLES
from kubeml.ops.doctor import examine
from tests.cli import Cli
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.faults.guarded import Guarded, guarded_servers
from tests.integration.conftest import put_function, put_points
from tests.scrape import parse, value


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Servers with per-role users."""
    with guarded_servers(tmp_path_factory.mktemp("guarded")) as pool:
        yield pool


@pytest.fixture(scope="module")
def cluster(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A whole pool, each process with its own role's credentials."""
    pool = Cluster(guarded.settings("client"))
    try:
        pool.start_ps(env=guarded.env("ps"))
        pool.start_control(env=guarded.env("control"))
        pool.start_worker("worker", env=guarded.env("worker"))
        pool.wait_for("control")
        put_points(pool.client, rows=300)
        put_function(pool.client, "tiny", tmp_path_factory.mktemp("code"))
        yield pool
    finally:
        pool.close()


def test_a_pool_trains_with_the_least_rights(
    guarded: Guarded, cluster: Cluster, tmp_path: Path
) -> None:
    job = cluster.client.train(
        "tiny", "points", epochs=2, batch_size=10, k=5, static=True, optimizer_state="carry"
    )

    assert job.wait(60).epoch == 2
    assert len(list(job.logs())) > 0
    assert job.infer(np.zeros((2, 8)).tolist()) is not None
    cli = Cli(guarded.settings("client"), tmp_path)
    assert job.id in cli("task list --short").out
    assert cli("doctor").code == 0
    assert [worker["name"] for worker in cli("top --json").json["workers"]] == ["worker"]
    assert job.resume(epochs=3).wait(60).epoch == 3
    assert cli("task prune --yes").code == 0
    assert cli(f"history delete --id {job.id} --yes").code == 0
    # Nobody was refused anything on the way.
    admin = [line for line in cluster.log("ps").splitlines() if "NOPERM" in line.upper()]
    assert admin == []


FORBIDDEN: dict[str, tuple[str, list[str]]] = {
    "client reads weights": ("client", ["GET", "kml:{j}:w:a:0"]),
    "client writes weights": ("client", ["SET", "kml:{j}:w:a:0", "x"]),
    "client writes a contribution": ("client", ["SET", "kml:{j}:c:a:0", "x"]),
    "client reads an optimizer state": ("client", ["MGET", "kml:{j}:o:a:0"]),
    "worker writes weights": ("worker", ["SET", "kml:{j}:w:a:0", "x"]),
    "worker deletes weights": ("worker", ["UNLINK", "kml:{j}:w:a:0"]),
    "worker drops the list of jobs": ("worker", ["DEL", "kubeml:jobs"]),
    "control reads weights": ("control", ["GET", "kml:{j}:w:a:0"]),
    "flower reads a job": ("flower", ["HGETALL", "kml:{j}:h"]),
    "flower sends a task": ("flower", ["LPUSH", "kubeml.train.cpu", "x"]),
    "flower takes a task": ("flower", ["RPOP", "kubeml.train.cpu"]),
    "flower deletes a queue": ("flower", ["DEL", "kubeml.train.cpu"]),
    "flower commands workers": ("flower", ["PUBLISH", "/0.celery.pidbox", "{}"]),
    **{
        f"{role} runs {' '.join(command)}": (role, command)
        for role in ROLES
        for command in (
            ["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["ACL", "LIST"], ["SHUTDOWN"],
            ["SCRIPT", "FLUSH"],
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_role_may_not_do_on_redis(guarded: Guarded, what: str) -> None:
    role, command = FORBIDDEN[what]

    with pytest.raises(NoPermissionError):
        guarded.redis(role).execute_command(*command)


@pytest.mark.parametrize("role", ["worker", "control"])
def test_a_worker_may_not_change_datasets_functions_or_jobs(guarded: Guarded, role: str) -> None:
    mine = ObjectStore(guarded.settings("client"))
    theirs = ObjectStore(guarded.settings(role))
    for key in ("datasets/d/manifest.json", "functions/f.json", "jobs/j/spec.json"):
        mine.put(key, b"{}")
        assert theirs.get(key) == b"{}"
        with pytest.raises(BackendRefused):
            theirs.put(key, b"other")
        with pytest.raises(BackendRefused):
            theirs.delete([key])
        assert mine.get(key) == b"{}"


def test_a_refusal_is_told_without_secrets(guarded: Guarded, tmp_path: Path) -> None:
    settings = guarded.settings("client")
    wrong = settings.broker_url.replace(guarded.secrets()[0], "guessed-password")
    cli = Cli(settings.with_changes(broker_url=Secret(wrong), state_url=Secret(wrong)), tmp_path)

    refused = cli("task list")

    assert refused.code == 5
    assert "guessed-password" not in refused.out + refused.err
    assert str(guarded.plan.valkey_port) in refused.err


def test_no_secret_is_logged_or_shown(guarded: Guarded, cluster: Cluster) -> None:
    shown = [cluster.log(name) for name in cluster.processes]
    assert all("DEBUG" in log for log in shown)
    shown += [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]

    for secret in guarded.secrets():
        assert not any(secret in text for text in shown)


def test_a_parameter_server_may_look_at_all_that_its_metrics_tell(
    guarded: Guarded, cluster: Cluster
) -> None:
    with Backends(guarded.settings("ps")) as backends:
        registry = CollectorRegistry()
        registry.register(PoolCollector(backends))
        now = parse(generate_latest(registry).decode())

    for server in ("state", "broker", "s3"):
        assert value(now, "kubeml_server_up", server=server) == 1
    assert value(now, "kubeml_nodes", role="ps", device="cpu") == 1
    assert value(now, "kubeml_queue_wanted_workers", queue=train_queue("cpu")) is not None


def test_what_is_refused_at_a_door_is_counted(guarded: Guarded, cluster: Cluster) -> None:
    dispatcher = cluster.client.backends.dispatcher
    with dispatcher.app.producer_or_acquire() as producer:
        for body, options in (
            ({"job_id": "../x"}, {"serializer": "json"}),
            ({"job_id": "x"}, {"serializer": "pickle"}),
        ):
            producer.publish(body, exchange="", routing_key="kubeml.ps", **options)
    dispatcher.app.send_task("kubeml.train", args=[{"job_id": 7}], queue=train_queue("cpu"))

    client = guarded.redis("ps")
    expected = {"hint", "message", "task"}
    eventually(lambda: expected <= set(refusals(client)), within_s=20, what="three counts")
    (finding,) = [f for f in examine(guarded.settings("client")) if f.check == "refused"]
    assert "hint" in finding.found


def test_access_files_are_private_and_not_replaced(tmp_path: Path) -> None:
    cli = Cli(Settings(home=tmp_path / "home"), tmp_path)

    first, again = cli("access --out a"), cli("access --out a")

    assert first.code == 0
    assert len(first.out.split()) == 2 + len(ROLES)
    assert again.code == 4
    assert all((file.stat().st_mode & 0o777) == 0o600 for file in (tmp_path / "a").iterdir())
    assert cli("access --out a --force").code == 0
    users = (tmp_path / "a" / "users.acl").read_text()
    assert "@" not in users.replace("@all", "").replace("+@", "").replace("-@", "")


def test_a_state_server_of_its_own_has_users_and_passwords_of_its_own(tmp_path: Path) -> None:
    cli = Cli(Settings(home=tmp_path / "home"), tmp_path)

    assert cli("access --out a --ca ca.pem").code == 2
    assert cli("access --out a --tls --ca /ca.pem --host b --state-host s").code == 0

    env = dict(line.split("=", 1) for line in (tmp_path / "a" / "worker.env").read_text().split())
    broker, state = urlsplit(env["KUBEML_BROKER_URL"]), urlsplit(env["KUBEML_STATE_URL"])
    assert (broker.hostname, state.hostname) == ("b", "s")
    assert {url.query for url in (broker, state)} == {"ssl_ca_certs=/ca.pem"}
    assert broker.password != state.password
    users = [(tmp_path / "a" / name).read_text() for name in ("users.acl", "state-users.acl")]
    for text, url in zip(users, (broker, state), strict=True):
        assert hashlib.sha256((url.password or "").encode()).hexdigest() in text
    assert "kml:" not in users[0]
    assert not any(rule in users[1] for rule in ("&", "~kubeml.", "celery", "kubeml-flower"))
