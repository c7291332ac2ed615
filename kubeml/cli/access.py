"""``kubeml access``: credentials for each role of a pool."""

from pathlib import Path
from typing import Annotated

import typer

from kubeml.cli import output
from kubeml.errors import InvalidOption


def access(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    host: Annotated[str, typer.Option("--host", help="The Redis server's host.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Its port.")] = 6379,
    state_host: Annotated[
        str | None,
        typer.Option("--state-host", help="The state server's host, if it is another one."),
    ] = None,
    state_port: Annotated[
        int | None, typer.Option("--state-port", min=1, max=65535, help="Its port.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="They speak TLS: rediss://.")] = False,
    ca: Annotated[
        str,
        typer.Option(
            "--ca", help="With --tls: file with a private authority, where the processes run."
        ),
    ] = "",
    bucket: Annotated[str, typer.Option("--bucket", help="The S3 bucket.")] = "kubeml",
    s3_url: Annotated[
        str | None, typer.Option("--s3", help="The S3 server's URL, if it is no cloud's.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace files that are there; those of no use now go."),
    ] = False,
) -> None:
    """Write credentials for client, worker, ps, control and flower, each with the least rights.

    users.acl is for the Redis server (aclfile), s3-identities.json for SeaweedFS, ROLE.env for the
    processes of a role, Flower's password in its own. Nothing secret is printed. With a state
    server of its own, state-users.acl is for that, and users.acl for the broker.
    """
    from kubeml.ops.access import (
        RedisServer,
        check_bucket,
        check_s3_url,
        is_same_host,
        url_host,
        write_access,
    )

    if ca and not tls:
        raise InvalidOption(option="--ca", got=ca, expected="--tls with it")
    check_bucket(bucket, option="--bucket")
    if s3_url is not None:
        check_s3_url(s3_url, option="--s3")
    broker = RedisServer(host=url_host(host, option="--host"), port=port, tls=tls, ca=ca)
    state = None
    if state_host is not None or state_port is not None:
        there = broker.host if state_host is None else url_host(state_host, option="--state-host")
        state = RedisServer(host=there, port=state_port or 6379, tls=tls, ca=ca)
        if is_same_host(broker.host, state.host) and broker.port == state.port:
            raise InvalidOption(
                option="--state-host",
                got=f"{state.host}:{state.port}, which is the broker's",
                expected="another server",
                hint="leave --state-host and --state-port out if one server is both",
            )
    for file in write_access(
        out,
        broker=broker,
        state=state,
        bucket=bucket,
        replace=force,
        s3_url=s3_url or "",
    ):
        output.line(str(file))
