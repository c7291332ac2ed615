"""``kubeml access``: credentials for each role of a pool."""

from pathlib import Path
from typing import Annotated

import typer

from kubeml.cli import output


def access(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    host: Annotated[str, typer.Option("--host", help="The Redis server's host.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Its port.")] = 6379,
    tls: Annotated[bool, typer.Option("--tls", help="It speaks TLS: rediss://.")] = False,
    bucket: Annotated[str, typer.Option("--bucket", help="The S3 bucket.")] = "kubeml",
    s3_url: Annotated[
        str, typer.Option("--s3", help="The S3 server's URL, if it is no cloud's.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    """Write credentials for client, worker, ps, control and flower, each with the least rights.

    users.acl is for the Redis server (aclfile), s3-identities.json for SeaweedFS, ROLE.env for the
    processes of a role, Flower's password in its own. Nothing secret is printed.
    """
    from kubeml.access import write_access

    for file in write_access(
        out, host=host, port=port, tls=tls, bucket=bucket, replace=force, s3_url=s3_url
    ):
        output.line(str(file))
