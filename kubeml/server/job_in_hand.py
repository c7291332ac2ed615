"""One job as its keeper has it in hand: the ways to its state, and what the keeper's parts share.

The keeper decides what is due, and ``commit`` and ``recovery`` do it. All three use the same round
store and the same spec, and leave commands for each other to send along.
"""

import logging
import time
from collections.abc import Callable

from brokers.messages.hint import Hint
from brokers.rounds.keeping import Keeping
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.streams import JobStreams
from brokers.state.batch import Batch
from brokers.tensors.channel import TensorChannel
from kubeml.errors import BackendUnreachable
from kubeml.jobs.spec import JobSpec
from kubeml.server.services import Services

logger = logging.getLogger(__name__)

#: Parameter servers share jobs by a short lease; the other takes over after this long.
OWNER_TTL_MS = 1500


class JobInHand:
    """The ways to one job's state, and what this process knows of it; the truth is elsewhere.

    Attributes:
        id: The job's id.
        services, backends: What all keepers of the process work with.
        store, channel, streams: Its live state, that state's tensors, and its events and log.
        records: The durable records, of all jobs.
        gen: The generation that was seen last.
        later: Commands that can wait: they go along with the next ones.
    """

    def __init__(self, job_id: str, services: Services) -> None:
        self.id, self.services = job_id, services
        self.backends = backends = services.backends
        self.store = Keeping(backends.redis, job_id)
        self.channel = TensorChannel(backends.redis)
        self.streams = JobStreams(backends.redis, job_id)
        self.records = backends.records
        self.gen = ""
        self._spec: tuple[str, JobSpec] | None = None
        self._owned_until = 0.0
        #: Why its metrics are incomplete, as was logged last.
        self._unnoted = ""
        self.later = Batch()

    @property
    def spec(self) -> JobSpec:
        """The job's spec, read once in each generation: a later life may have another one."""
        if self._spec is None or self._spec[0] != self.gen:
            self._spec = (self.gen, self.records.spec(self.id))
        return self._spec[1]

    @property
    def is_owned(self) -> bool:
        """Whether this process looks after the job, as far as it knows."""
        return time.monotonic() < self._owned_until

    def acquire(self, gen: str) -> bool:
        """Ask for the job's lease or renew it, and return whether this process has it now."""
        asked_at = time.monotonic()
        is_ours = self.store.acquire(gen, self.services.name, ttl_ms=OWNER_TTL_MS)
        self._owned_until = asked_at + OWNER_TTL_MS / 1000 if is_ours else 0.0
        if is_ours:
            self.store.enlist()
        return is_ours

    def read(self) -> Snapshot:
        """Return the job's state, after carrying out the commands that were left for later."""
        return self.store.snapshot(first=self.later.take())

    def ask_for_plan(self, epoch: int) -> None:
        """Ask by message for a plan of an epoch; any control worker may make it."""
        try:
            self.backends.dispatcher.schedule(
                Hint(job_id=self.id), label=f"{self.id}-e{epoch}-schedule"
            )
        except BackendUnreachable as err:
            # It is only a hint: the tick asks again.
            logger.warning("job %s: %s", self.id, err)

    def note(self, write: Callable[..., None], *what: object) -> None:
        """Write something into the metrics' books; the job must not suffer if that fails."""
        try:
            write(*what)
        except Exception as err:  # any error: the job's end must not depend on the books
            if repr(err) != self._unnoted:
                self._unnoted = repr(err)
                logger.exception("job %s: its metrics are incomplete", self.id)
