"""Jobs without training: participants that send and fetch real bytes by the real protocol.

Scheduler, parameter server, Redis and S3 are those of a running stack that has no workers.
"""

import itertools
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from brokers.rounds.answers import Leave, Wait
from brokers.rounds.contribution import Contribution
from brokers.rounds.participation import Participation
from brokers.tensors.channel import TensorChannel
from brokers.wire import new_id
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.weights.layout import Layout, TensorSpec, pack_initial
from scripts.benchmarks import pool
from scripts.benchmarks.patience import wait_until
from scripts.benchmarks.stamps import watched_merges

#: All rounds of a size may take this long.
WITHIN_S = 1800.0


def take_part(client: Client, job_id: str, layout: Layout, stage: str) -> None:
    """Take slots of one job and hand them in untrained, until told to leave.

    The loop of ``kubeml.worker.participant``, without what makes it robust.
    """
    store, channel = (
        Participation(client.backends.redis, job_id),
        TensorChannel(client.backends.redis),
    )
    token, ticket = new_id(), new_id()
    # As SEND would record it, however many the parameter server has sent out.
    client.backends.redis.zadd(store.key("d"), {ticket: 0})
    gen = store.head().gen
    blob: bytearray | None = None
    while True:
        work = store.take(gen, token=token, ticket=ticket, stage=stage)
        if isinstance(work, Leave):
            return
        if isinstance(work, Wait):
            store.wait_for_bell(work.bell, block_ms=500)
            continue
        if work.weights is None:
            weights = pack_initial(layout, bytearray(layout.weights_bytes), bytearray())
        else:
            weights = blob = channel.pull(work.weights, into=blob)
        cid = new_id()
        ref = channel.push(store.key("c", cid), weights, is_passing=True)
        _, wait = store.contribute(
            gen, work.rid,
            Contribution(
                cid=cid, token=token, slot=work.slot, worker=token, num_samples=1,
                num_steps=1, attempt=work.attempt, tensors=ref.to_json(), layout=layout.hash,
            ),
        )  # fmt: skip
        if wait is not None:
            client.backends.dispatcher.hint(job_id)


def seconds_per_round(
    client: Client, *, slots: int, num_bytes: int, rounds: int, jobs: int = 1
) -> list[float]:
    """Seconds from merge to merge of jobs that run at once.

    Args:
        client: A stack without workers, that has a function ``large`` and rows enough.
        slots: Participants of each job.
        num_bytes: Size of the model, as float32.
        rounds: Rounds of each job; the first is not counted.
        jobs: How many at once.
    """
    tensor = TensorSpec(name="part", shape=(num_bytes // 4,), dtype="float32", kind="param")
    layout = Layout((tensor,))
    # The threads are waited for when the jobs have been stopped: they are told to leave then.
    with ThreadPoolExecutor(jobs * slots) as threads:
        with _initialised(client, layout, slots=slots, jobs=jobs) as started, ExitStack() as stack:
            watched = [stack.enter_context(watched_merges(client, job.id)) for job in started]
            parts = [
                threads.submit(take_part, client, job.id, layout, "train")
                for job in started for _ in range(slots)
            ]  # fmt: skip
            wait_until(
                lambda: all(len(merges) > rounds for merges in watched), within_s=WITHIN_S
            )  # fmt: skip
        for part in parts:
            part.result()
    return [
        later.merged_at - earlier.merged_at
        for merges in watched
        for earlier, later in itertools.pairwise(merges[: rounds + 1])
    ]


@contextmanager
def _initialised(client: Client, layout: Layout, *, slots: int, jobs: int) -> Iterator[list[Job]]:
    """Jobs in their first epoch of rounds; stopped afterwards."""
    started = [
        pool.submit(
            client, "large", job_id=uuid.uuid4().hex[:8], epochs=1, parallelism=slots, k=1,
            batch_size=1, optimizer_state="reset",
        )
        for _ in range(jobs)
    ]  # fmt: skip
    for job in started:
        take_part(client, job.id, layout, "init")
        store = Participation(client.backends.redis, job.id)
        wait_until(lambda store=store: store.head().state == "RUN", within_s=WITHIN_S)
    try:
        yield started
    finally:
        for job in started:
            pool.stop(job)
