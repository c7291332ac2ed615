"""``rediss://``: everything goes through TLS, and a certificate nobody vouches for is refused."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from brokers.errors import BackendUnreachable
from brokers.settings import Secret, Settings
from brokers.state.connections import state_client
from brokers.state.error_mapping import redis_errors
from tests.cluster import Cluster
from tests.faults.tcp_proxy import TcpProxy
from tests.integration.conftest import put_function, put_points


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def port(authority: trustme.CA, s3_settings: Settings) -> Iterator[int]:
    """Where the Valkey server answers by TLS (the one of the wheel is built without)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    target = int(s3_settings.broker_url.rsplit(":", 1)[1].split("/")[0])
    proxy = TcpProxy(target, tls=context)
    yield proxy.port
    proxy.close()


def secure(settings: Settings, port: int, query: str) -> Settings:
    password = settings.broker_url.split("@")[0].removeprefix("redis://")
    # A database of its own: the workers of another pool must not take this one's dispatches.
    url = Secret(f"rediss://{password}@127.0.0.1:{port}/5?{query}")
    return settings.with_changes(broker_url=url, state_url=url)


def test_a_pool_trains_through_tls(
    authority: trustme.CA, port: int, s3_settings: Settings, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    settings = secure(s3_settings, port, f"ssl_ca_certs={tmp_path}/ca.pem").with_changes(
        home=tmp_path / "home", cache_dir=tmp_path / "cache", s3_bucket="tls"
    )
    pool = Cluster(settings)
    try:
        pool.client.backends.objects.ensure_bucket()
        pool.start(workers=1)
        put_points(pool.client, rows=200)
        put_function(pool.client, "tiny", tmp_path)
        job = pool.client.train("tiny", "points", epochs=1, batch_size=10, k=5)

        assert job.wait(60).epoch == 1
        assert job.infer([[0.0] * 8]) is not None
    finally:
        pool.close()


def test_an_unknown_certificate_is_refused(s3_settings: Settings, port: int) -> None:
    client = state_client(secure(s3_settings, port, "ssl_cert_reqs=required"))

    with pytest.raises(BackendUnreachable, match="certificate"), redis_errors("the server"):
        client.ping()
