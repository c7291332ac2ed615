"""Servers of this run's own: free ports, empty directories, gone afterwards."""

import os
import signal
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from brokers.objects.store import ObjectStore
from brokers.settings import Settings
from kubeml.stack.servers import (
    ServerPlan,
    s3_command,
    s3_environment,
    valkey_command,
    wait_for_s3,
    wait_for_valkey,
)
from tests.processes import running_server

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile(
    "kubeml", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("kubeml")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No setting of the person who runs the tests may reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("KUBEML_", "AWS_ACCESS", "AWS_SECRET", "AWS_PROFILE")):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heeded() -> None:
    """In the background of a shell script all begins deaf to Ctrl-C, and so would its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server_plan() -> ServerPlan:
    """Ports and secrets of this run's servers."""
    return ServerPlan.make()


@pytest.fixture(scope="session")
def base_settings(server_plan: ServerPlan, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings that point at this run's servers (which other fixtures start)."""
    home = tmp_path_factory.mktemp("home")
    return server_plan.settings(Settings(home=home))


@pytest.fixture(scope="session")
def redis_url(
    server_plan: ServerPlan, base_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a Valkey server of this run's own."""
    folder = tmp_path_factory.mktemp("valkey")
    with running_server(valkey_command(server_plan, folder), folder / "log") as process:
        wait_for_valkey(base_settings, within_s=20, is_up=lambda: process.poll() is None)
        yield str(base_settings.state_url)


@pytest.fixture(scope="session")
def s3_settings(
    redis_url: str,
    server_plan: ServerPlan,
    base_settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """Settings with a running Valkey and a running S3 server, bucket included."""
    folder = tmp_path_factory.mktemp("s3")
    command = s3_command(server_plan, folder)
    # It serves hundreds of tests: within a stack's limit it took twice the CPU time.
    env = s3_environment() | {"GOMEMLIMIT": "1GiB"}
    with running_server(command, folder / "log", env=env) as process:
        wait_for_s3(base_settings, within_s=30, is_up=lambda: process.poll() is None)
        yield base_settings


@pytest.fixture(scope="session")
def objects(s3_settings: Settings) -> ObjectStore:
    """The bucket of this run's S3 server."""
    return ObjectStore(s3_settings)


@pytest.fixture
def job_id() -> str:
    """An id that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
