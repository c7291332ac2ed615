"""Jobs without training: participants that send and fetch real bytes by the real protocol.

Scheduler, parameter server, Redis and S3 are those of a running stack that has no workers.
"""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.participation import Participation
from brokers.tensors.channel import TensorChannel
from brokers.wire import new_id
from kubeml.client.client import Client
from kubeml.client.job import Job
from kubeml.weights.layout import Layout, TensorSpec, pack_initial
from scripts.benchmarks import pool
from scripts.benchmarks.round_watch import RoundWatch

#: All rounds of a size may take this long.
WITHIN_S = 1800.0


class Participant(threading.Thread):
    """Takes slots of one job and hands them in untrained, until told to leave."""

    def __init__(self, client: Client, job_id: str, layout: Layout, stage: str) -> None:
        super().__init__(daemon=True)
        self._client, self._layout, self._stage = client, layout, stage
        self._store = Participation(client.redis, job_id)
        self._channel = TensorChannel(client.redis)
        self._token = new_id()
        self._blob: bytearray | None = None

    def run(self) -> None:
        """The loop of ``kubeml.worker.participant``, without what makes it robust."""
        ticket = new_id()
        # As SEND would record it, however many the parameter server has sent out.
        self._client.redis.zadd(self._store.key("d"), {ticket: 0})
        gen = self._store.head()["gen"]
        while True:
            answer = self._store.take(gen, token=self._token, ticket=ticket, stage=self._stage)
            if isinstance(answer, Leave):
                return
            if isinstance(answer, Wait):
                self._store.wait_for_bell(answer.bell, block_ms=500)
            else:
                self._hand_in(gen, answer)

    def _hand_in(self, gen: str, work: Work) -> None:
        if work.weights is None:
            weights = bytearray(self._layout.weights_bytes)
            blob = pack_initial(self._layout, weights, bytearray())
        else:
            blob = self._blob = self._channel.pull(work.weights, into=self._blob)
        cid = new_id()
        ref = self._channel.push(self._store.key("c", cid), blob, is_passing=True)
        _, wait = self._store.contribute(
            gen, work.rid,
            Contribution(
                cid=cid, token=self._token, slot=work.slot, worker=self.name, num_samples=1,
                num_steps=1, attempt=work.attempt, tensors=ref.to_json(), layout=self._layout.hash,
            ),
        )  # fmt: skip
        if wait is not None:
            self._client.dispatcher.hint(self._store.job_id)


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
    watches = []
    with _initialised(client, layout, slots=slots, jobs=jobs) as started:
        participants = []
        for job in started:
            watches.append(RoundWatch(client, job.id))
            watches[-1].start()
            participants += [Participant(client, job.id, layout, "train") for _ in range(slots)]
        for participant in participants:
            participant.start()
        _wait(lambda: all(len(watch.rounds) > rounds for watch in watches))
    found = []
    for watch in watches:
        merged = [times.merged_at for times in watch.stop()][: rounds + 1]
        found += [later - earlier for earlier, later in itertools.pairwise(merged)]
    for participant in participants:
        participant.join()
    return found


@contextmanager
def _initialised(
    client: Client, layout: Layout, *, slots: int, jobs: int
) -> Iterator[Sequence[Job]]:
    """Jobs in their first epoch of rounds; stopped afterwards."""
    started = [
        pool.submit(
            client, "large", job_id=uuid.uuid4().hex[:8], epochs=1, parallelism=slots, k=1,
            batch_size=1, optimizer_state="reset",
        )
        for _ in range(jobs)
    ]  # fmt: skip
    for job in started:
        Participant(client, job.id, layout, "init").run()
        _wait(lambda job=job: Participation(client.redis, job.id).head().get("state") == "RUN")
    try:
        yield started
    finally:
        for job in started:
            pool.stop(job)


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing within {WITHIN_S:.0f} s")
        time.sleep(0.01)
