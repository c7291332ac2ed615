"""Uploading a dataset over sending the same bytes to the same S3 by a plain multi-part upload."""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np

from scripts.benchmarks import pool
from scripts.benchmarks.report import publish, ratio, series, target

ROW_BYTES = 28 * 28
MB = 10**6

COUNTED = (
    "kubeml: `Client.datasets.create` of arrays in memory, until the dataset can be used: cutting"
    " into shards, checking for NaN, hashing, putting and verifying included",
    "plain: boto3's `upload_fileobj` (multi-part, its default settings) of as many bytes in memory",
    "both to the stack's own S3 server, in turns; what was sent is deleted in between",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mb", type=int, help="megabytes to send; 512 unless given")


def run(options: argparse.Namespace) -> None:
    """Take turns."""
    size = (options.mb or (64 if options.quick else 512)) * MB
    rows = size // ROW_BYTES
    images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28), dtype=np.uint8)
    labels = np.zeros(rows, np.uint8)
    content = images.tobytes()
    ours, plain = [], []
    with pool.embedded_stack(workers=1) as client:
        s3, bucket = client.backends.objects.client, client.backends.objects.bucket
        client.backends.objects.ensure_bucket()
        for _ in range(options.repeat or (2 if options.quick else 7)):
            seconds = timed(
                lambda: client.datasets.create(
                    "sent", train_data=images, train_labels=labels,
                    test_data=images[:1], test_labels=labels[:1],
                )
            )  # fmt: skip
            ours.append(size / MB / seconds)
            client.datasets.delete("sent")
            seconds = timed(lambda: s3.upload_fileobj(io.BytesIO(content), bucket, "plain/sent"))
            plain.append(size / MB / seconds)
            client.backends.objects.delete(["plain/sent"])
    kubeml, boto3 = series("kubeml", "MB/s", ours), series("plain multi-part", "MB/s", plain)
    share = ratio("kubeml / plain", kubeml, boto3)
    publish(
        options, COUNTED, [kubeml, boto3, share], targets=[target(share, at_least=0.8)],
        facts={"data": f"{size / MB:,.0f} MB of noise, {rows:,} rows"},
    )  # fmt: skip


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
