"""What a parameter server has seen of its jobs, in numbers, for its metrics. Pure.

Each book has one writer, its job's keeper, and any number of readers. Counters hold what *this*
process saw: over several parameter servers they are summed. All else is the job's present state.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from brokers.rounds.contribution import Contribution
from brokers.rounds.snapshot import Snapshot
from kubeml.jobs.results import EpochRow
from kubeml.jobs.round_times import MEASURED
from kubeml.jobs.spec import State
from kubeml.metrics.histogram import Histogram

#: No more jobs than this have series, which bounds what Prometheus has to store.
MAX_JOBS = 200

#: Why an attempt at a slot comes to nothing, in the ledger's words: its lease ran out, the function
#: raised or hung, its contribution was refused, or its worker was told to go. If an epoch has very
#: many failed attempts, the ledger notes only the first: the others are ``other``.
REASONS = ("lost", "error", "bad", "drain", "other")

#: Phases of a round: what workers measure (the mean of the slots), the parameter server's merge,
#: and the rest, which is waiting for a worker or for the slowest slot, and attempts that failed.
ROUND_PHASES = (*MEASURED, "merge", "rest")

#: Reads failed attempts of the epoch from the ledger, from the first to the last of two numbers.
ReadFailed = Callable[[int, int], Sequence[str]]


class JobBook:
    """What was seen of one job.

    Attributes:
        state, epoch, round, rounds: The job's place when it was last seen.
        slots: N of the epoch that was trained last; 0 before the first.
        owner: The name of the parameter server that looks after it; "" if there is none yet.
        seen_at: When it was last seen, by the caller's clock.
        num_rounds, num_samples: Rounds that this process merged, and the rows in them.
        retries: Reason to the number of attempts that came to nothing.
        resizes: ``up`` and ``down`` to the number of changes of N between two epochs.
        row: The last known history row.
        val_loss, accuracy: Those of the last known validation.
    """

    def __init__(self) -> None:
        self.state = ""
        self.epoch = self.round = self.rounds = self.slots = 0
        self.owner = ""
        self.seen_at = -math.inf
        self.num_rounds = self.num_samples = 0
        # Counters begin with zero: to Prometheus a series that begins with one has not grown.
        self.retries: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.resizes: Counter[str] = Counter(up=0, down=0)
        self.row: EpochRow | None = None
        self.val_loss: float | None = None
        self.accuracy: float | None = None
        self._epoch_of_failures = ("", -1)
        self._num_failures = 0

    @property
    def is_live(self) -> bool:
        """Whether the job has not ended, as far as is known."""
        return self.state not in {State.DONE, State.FAILED, State.STOPPED}

    def look(self, snap: Snapshot, now: float, read_failed: ReadFailed) -> None:
        """Note the job's present state, and count the attempts that failed since the last look."""
        self.seen_at, self.owner = now, snap.head.owner
        self.state, self.epoch = snap.state, snap.head.epoch
        self.round, self.rounds = snap.head.round, snap.head.rounds
        # A head that was rebuilt has one slot until the scheduler plans its epoch.
        if self.state in {State.RUN, State.VAL}:
            slots = snap.head.slots
            if self.slots and slots != self.slots:
                self.resizes["up" if slots > self.slots else "down"] += 1
            self.slots = slots
        if self._epoch_of_failures != (snap.gen, self.epoch):
            self._epoch_of_failures, self._num_failures = (snap.gen, self.epoch), 0
        number = snap.head.failed
        if number > self._num_failures:
            texts = read_failed(self._num_failures + 1, number)
            self.retries.update(map(_reason, texts))
            self.retries["other"] += number - self._num_failures - len(texts)
            self._num_failures = number

    def note_row(self, row: EpochRow) -> None:
        """Note the history row of an epoch."""
        self.row = row
        if row.val_loss is not None:
            self.val_loss = row.val_loss
        if row.accuracy is not None:
            self.accuracy = row.accuracy


class JobBooks:
    """The jobs that a parameter server sees, and its merges.

    Args:
        keep_s: How long a job is remembered after its last look: then it has left this process.
    """

    def __init__(self, keep_s: float = 300.0) -> None:
        self._keep_s = keep_s
        self._books: dict[str, JobBook] = {}
        self.round_seconds = Histogram()
        self.phase_seconds = {phase: Histogram() for phase in ROUND_PHASES}
        #: Bytes of all contributions that were merged.
        self.merged_bytes = 0

    def of(self, job_id: str) -> JobBook:
        """Return the book of a job; a new one if there is none."""
        return self._books.setdefault(job_id, JobBook())

    def look(self, job_id: str, snap: Snapshot, now: float, read_failed: ReadFailed) -> None:
        """See ``JobBook.look``."""
        if job_id not in self._books:
            self.current(now)
        self.of(job_id).look(snap, now, read_failed)

    def note_merge(
        self, job_id: str, snap: Snapshot, contributions: Sequence[Contribution], merge_s: float
    ) -> None:
        """Note a round of training that this process has merged.

        Args:
            job_id: The job.
            snap: Its state when the round was found complete.
            contributions: What was merged.
            merge_s: How long the merge took from that moment.
        """
        if snap.state != State.RUN:
            return
        book = self.of(job_id)
        book.num_rounds += 1
        book.num_samples += sum(c.num_samples for c in contributions)
        self.merged_bytes += sum(c.ref.num_bytes for c in contributions)
        phases = {
            phase: sum(_seconds(c.timings, phase) for c in contributions) / len(contributions)
            for phase in MEASURED
        } | {"merge": merge_s}
        # Both times are by the state server's clock, which may have been set back meanwhile.
        opened_ms = snap.head.opened
        if 0 < opened_ms <= snap.now_ms:
            total_s = (snap.now_ms - opened_ms) / 1000 + merge_s
            self.round_seconds.observe(total_s)
            phases["rest"] = max(0.0, total_s - sum(phases.values()))
        for phase, seconds in phases.items():
            self.phase_seconds[phase].observe(seconds)

    def current(self, now: float) -> dict[str, JobBook]:
        """Return the jobs that were seen lately, and forget the others."""
        oldest = now - self._keep_s
        gone = [id_ for id_, book in self._books.copy().items() if book.seen_at < oldest]
        for job_id in gone:
            self._books.pop(job_id, None)
        return self._books.copy()


def bounded(books: Mapping[str, JobBook]) -> dict[str, JobBook]:
    """Return the ``MAX_JOBS`` jobs that get series: live ones first, then those seen last."""
    ranked = sorted(books, key=lambda id_: (not books[id_].is_live, -books[id_].seen_at, id_))
    return {job_id: books[job_id] for job_id in sorted(ranked[:MAX_JOBS])}


def _reason(text: str) -> str:
    try:
        kind = json.loads(text)["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "other"
    return kind if kind in REASONS else "other"


def _seconds(timings: Mapping[str, object], phase: str) -> float:
    """Return the seconds that a worker measured for a phase; 0 if its value is no time."""
    value = timings.get(phase)
    is_time = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return float(value) if is_time else 0.0  # type: ignore[arg-type]
