"""The keys on Redis and S3, as jobs of all kinds leave them there, are those of ``tests/frozen``.

Pools of two versions share servers while one is replaced by the other, and S3 keeps what it has.
"""

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from brokers.pool.refusals import refusals
from brokers.settings import Settings
from brokers.state.connections import state_client
from kubeml import Client, Job
from kubeml.errors import JobStopped
from tests.cluster import Cluster
from tests.integration.conftest import Submit, wait_for_round
from tests.surface import require_frozen


@pytest.mark.timeout(240)
def test_keys_on_redis_and_s3(cluster: Cluster, client: Client, submit: Submit) -> None:
    with monitored(cluster.settings) as seen:
        # Its one epoch takes 12 s: it is stopped in the middle, however slow this machine is.
        stopped = submit("slow", batch_size=1, k=5, parallelism=2)
        wait_for_round(stopped)
        during = [info.key for info in client.backends.objects.list(f"active/{stopped.id}")]
        stopped.scale("1:4")
        stopped.stop()
        with pytest.raises(JobStopped):
            stopped.wait(60)
        options = {"k": 8, "parallelism": 2}
        jobs = [
            submit(**options, optimizer_state="carry", outer="nesterov", outer_momentum=0.5),
            submit(**options, overlap=True),
        ]
        for job in jobs:
            job.wait(60)
        jobs[0].infer([[0.0] * 8])
        stopped.resume(function="tiny").wait(60)
        refusals(client.backends.redis)

    jobs.append(stopped)
    assert during
    require_frozen(
        "keys",
        [
            *(f"redis {key}" for key in redis_patterns(seen, jobs)),
            *(f"s3 {key}" for key in s3_patterns([*during, *kept(client, jobs)], jobs)),
        ],
    )


@contextmanager
def monitored(settings: Settings) -> Iterator[list[str]]:
    """All commands that the database of these settings is given meanwhile, as texts."""
    seen: list[str] = []
    redis = state_client(settings)
    number = redis.connection_pool.connection_kwargs["db"]
    over = threading.Event()
    with redis.monitor() as monitor:

        def listen() -> None:
            while not over.is_set():
                command = monitor.next_command()
                if command["db"] == number:
                    seen.append(command["command"])

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield seen
        finally:
            over.set()
            # It hears this, and ends.
            redis.ping()
            listener.join(10)
    redis.close()


def redis_patterns(commands: Iterable[str], jobs: list[Job]) -> set[str]:
    """Keys of these jobs and of the pool in commands, without what tells two of a kind apart."""
    own = "|".join(job.id for job in jobs)
    pattern = re.compile(rf"kml:\{{(?:{own})\}}:[\w:-]+|(?<![\w@-])kubeml:[a-z]+")
    found = {key for command in commands for key in pattern.findall(command)}
    return {varied(re.sub(r"\{[\w-]+\}", "{job}", key)) for key in found}


def s3_patterns(keys: Iterable[str], jobs: list[Job]) -> set[str]:
    """S3 keys without what tells two of a kind apart."""
    own = "|".join(job.id for job in jobs)
    telling = [
        (own, "{job}"),
        (r"^(finished/\{job\}\.\d{6}\.).*", r"\1{summary}"),
        (r"^functions/[\w-]+\.json$", "functions/{name}.json"),
        (r"^datasets/[\w-]+/", "datasets/{name}/"),
        (r"/\d{8}T\d{6}Z-\w+/", "/{version}/"),
    ]
    found = set()
    for key in keys:
        pattern = key
        for what, placeholder in telling:
            pattern = re.sub(what, placeholder, pattern)
        found.add(varied(pattern))
    return found


def varied(key: str) -> str:
    """A key with placeholders for hashes, unique ids and numbers."""
    key = re.sub(r"[0-9a-f]{64}", "{sha256}", key)
    key = re.sub(r"[0-9a-f]{32}", "{uuid}", key)
    return re.sub(r"(?<=[-/.:])\d+(?=[.:]|$)", lambda match: "0" * len(match[0]), key)


def kept(client: Client, jobs: list[Job]) -> Iterator[str]:
    """What S3 holds of jobs, functions and datasets."""
    prefixes = ["functions/", "datasets/points/"]
    for job in jobs:
        names = ("jobs", "history", "checkpoints")
        prefixes += [*(f"{name}/{job.id}/" for name in names), f"finished/{job.id}"]
    for prefix in prefixes:
        yield from (info.key for info in client.backends.objects.list(prefix))
