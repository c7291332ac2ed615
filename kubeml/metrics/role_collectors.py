"""The metrics of each role, from the books that it keeps.

Several parameter servers see the same jobs. A job's present state is exported by the one that looks
after it; its merges are exported by each server that made some. So gauges, retries and resizes are
taken by ``max``, and rounds, samples and merges by ``sum``.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from kubeml.jobs.records import JobRecords
from kubeml.metrics.background import BackgroundRead
from kubeml.metrics.families import counter, gauge, histogram
from kubeml.metrics.job_books import JobBook, JobBooks, bounded
from kubeml.metrics.scheduler_book import SchedulerBook
from kubeml.metrics.worker_book import WorkerBook
from kubeml.pool.view import PoolJob, PoolView

#: How long a scrape waits for a history row.
_ROW_WITHIN_S = 1.0

#: A job's label is that of the original KubeML's metrics; ``job`` is Prometheus's own label.
_JOB = ("jobid",)

Value = float | None


class JobCollector(Collector):
    """The metrics of one parameter server's jobs.

    Args:
        books: What it has seen of them.
        name: Its name, by which a job names its owner.
        records: Where history rows are that it has not written itself.
        view: Returns the pool now; None if it cannot be seen.
    """

    def __init__(
        self,
        books: JobBooks,
        name: str,
        records: JobRecords,
        view: Callable[[], PoolView | None],
    ) -> None:
        self._books, self._name, self._records, self._view = books, name, records, view
        self._rows = BackgroundRead(self._read_rows)

    def collect(self) -> Iterator[Metric]:
        """The families."""
        now = time.monotonic()
        everything = self._books.current(now)
        books = bounded(everything)
        own = {job_id: book for job_id, book in books.items() if book.owner == self._name}
        view = self._view()
        self._rows.begin()
        self._rows.result(now + _ROW_WITHIN_S)
        yield from _course(own)
        yield from _results(own, view.at if view else None)
        if view is not None:
            yield from _pace({job.id: job for job in view.jobs if job.id in own})
        yield from _work(books, own)
        yield from _merges(self._books)
        yield gauge(
            "kubeml_metrics_jobs_left_out",
            "Jobs without series: there are more than have a place",
            (),
            {(): len(everything) - len(books)},
        )

    def _read_rows(self) -> None:
        """Read the last history row of jobs that another parameter server looked after before."""
        for job_id, book in self._books.current(time.monotonic()).items():
            if book.row is None and book.owner == self._name and book.epoch > 1:
                row = self._records.row(job_id, book.epoch - 1)
                if row is not None and book.row is None:
                    book.note_row(row)


def _course(own: Mapping[str, JobBook]) -> Iterator[Metric]:
    """Yield where the jobs are."""
    yield gauge(
        "kubeml_job_state",
        "1 for the state that the job is in",
        ("jobid", "state"),
        {(id_, book.state): 1 for id_, book in own.items()},
    )
    yield _each("kubeml_job_parallelism", "Slots N of the epoch", own, lambda b: b.slots or None)
    yield _each("kubeml_job_epoch", "Epoch under way, from 1", own, lambda b: b.epoch)
    yield _each("kubeml_job_round", "Rounds of it that are merged", own, lambda b: b.round)
    yield _each("kubeml_job_epoch_rounds", "Rounds that it has", own, lambda b: b.rounds)


def _results(own: Mapping[str, JobBook], server_now_s: float | None) -> Iterator[Metric]:
    """Yield the results of the last epochs."""
    yield _each(
        "kubeml_job_validation_loss", "Loss of the last validation", own, lambda b: b.val_loss
    )
    yield _each(
        "kubeml_job_validation_accuracy",
        "Accuracy of the last validation, as validate() returns it",
        own,
        lambda b: b.accuracy,
    )
    yield _each(
        "kubeml_job_train_loss",
        "Training loss of the last epoch",
        own,
        lambda b: b.row.train_loss if b.row else None,
    )
    yield _each(
        "kubeml_job_epoch_duration_seconds",
        "Training time of the last epoch",
        own,
        lambda b: b.row.duration_s if b.row else None,
    )
    yield gauge(
        "kubeml_job_epoch_phase_seconds",
        "Where the time of the last epoch went: means of the slots, summed over its rounds",
        ("jobid", "phase"),
        {
            (id_, phase): seconds
            for id_, book in own.items()
            if book.row
            for phase, seconds in book.row.phases.items()
        },
    )

    def age(book: JobBook) -> Value:
        if server_now_s is None or book.row is None or not book.is_live:
            return None
        # Both times are by the state server's clock.
        return max(0.0, server_now_s - book.row.ended_at)

    yield _each(
        "kubeml_job_checkpoint_age_seconds",
        "Since the last checkpoint of an epoch; running jobs",
        own,
        age,
    )


def _pace(jobs: Mapping[str, PoolJob]) -> Iterator[Metric]:
    """Yield how fast running jobs are."""
    shown: list[tuple[str, str, Callable[[PoolJob], Value]]] = [
        ("kubeml_job_epochs", "Epochs that were asked for", lambda j: j.epochs or None),
        ("kubeml_job_progress_ratio", "Part of the epoch that is trained", lambda j: j.progress),
        ("kubeml_job_workers", "Workers that take part", lambda j: j.workers),
        ("kubeml_job_samples_per_second", "Rows trained, lately", lambda j: j.samples_per_s),
        ("kubeml_job_left_seconds", "Until all its epochs are trained", lambda j: j.left_s),
        ("kubeml_job_waiting_dispatches", "That no worker has answered", lambda j: j.waiting),
        (
            "kubeml_job_oldest_dispatch_seconds",
            "For how long the oldest of them has waited",
            lambda j: j.oldest_wait_s or 0.0,
        ),
    ]
    for name, text, value in shown:
        yield gauge(name, text, _JOB, {(id_,): value(job) for id_, job in jobs.items()})


def _work(books: Mapping[str, JobBook], own: Mapping[str, JobBook]) -> Iterator[Metric]:
    """Yield what was done for the jobs, and what was done in vain."""
    merged = {id_: book for id_, book in books.items() if book.num_rounds or id_ in own}
    yield counter(
        "kubeml_job_rounds",
        "Rounds that this parameter server has merged",
        _JOB,
        {(id_,): book.num_rounds for id_, book in merged.items()},
    )
    yield counter(
        "kubeml_job_samples",
        "Rows trained in the rounds that it has merged",
        _JOB,
        {(id_,): book.num_samples for id_, book in merged.items()},
    )
    yield counter(
        "kubeml_job_retries",
        "Attempts at a slot that came to nothing: lost (its lease ran out), error (the function "
        "raised or hung), bad (contribution refused), drain (worker told to go)",
        ("jobid", "reason"),
        {(id_, why): n for id_, book in own.items() for why, n in book.retries.items()},
    )
    yield counter(
        "kubeml_job_lost_workers",
        "Workers that were lost while they held a slot",
        _JOB,
        {(id_,): book.retries["lost"] for id_, book in own.items()},
    )
    yield counter(
        "kubeml_job_resizes",
        "Changes of N between two epochs",
        ("jobid", "direction"),
        {(id_, way): n for id_, book in own.items() for way, n in book.resizes.items()},
    )


def _merges(books: JobBooks) -> Iterator[Metric]:
    yield histogram(
        "kubeml_round_seconds",
        "Rounds of training, from opening to merge",
        (),
        {(): books.round_seconds},
    )
    yield histogram(
        "kubeml_round_phase_seconds",
        "Phases of these rounds, means of the slots; rest: waiting for workers and slow slots",
        ("phase",),
        {(phase,): one for phase, one in books.phase_seconds.items()},
    )
    yield counter(
        "kubeml_merge_bytes", "Bytes of contributions merged", (), {(): books.merged_bytes}
    )


def _each(
    name: str, text: str, books: Mapping[str, JobBook], value: Callable[[JobBook], Value]
) -> Metric:
    return gauge(name, text, _JOB, {(id_,): value(book) for id_, book in books.items()})


class WorkerCollector(Collector):
    """The metrics of a training worker."""

    def __init__(self, book: WorkerBook) -> None:
        self._book = book

    def collect(self) -> Iterator[Metric]:
        """The families."""
        book = self._book
        yield counter(
            "kubeml_worker_batches", "Batches trained or validated", (), {(): book.num_batches}
        )
        yield counter(
            "kubeml_worker_samples",
            "Rows in what was handed in",
            ("stage",),
            {(stage,): n for stage, n in book.samples.items()},
        )
        yield counter(
            "kubeml_worker_slots",
            "Slots served, by what became of them",
            ("stage", "outcome"),
            {(stage, outcome): n for (stage, outcome), n in book.slots.items()},
        )
        yield histogram(
            "kubeml_worker_phase_seconds",
            "Phases of its slots in rounds of training",
            ("phase",),
            {(phase,): one for phase, one in book.phase_seconds.items()},
        )


class ControlCollector(Collector):
    """The metrics of a control worker."""

    def __init__(self, book: SchedulerBook) -> None:
        self._book = book

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield counter(
            "kubeml_scheduler_plans",
            "Epochs planned: by which policy, and how N has changed",
            ("policy", "change"),
            {(policy, change): n for (policy, change), n in self._book.plans.items()},
        )
        yield histogram(
            "kubeml_scheduler_plan_seconds",
            "From the request to the plan",
            (),
            {(): self._book.plan_seconds},
        )
