"""The books behind the metrics: what is counted, once, and for how many jobs."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram

from brokers.rounds.contribution import Contribution
from brokers.rounds.head import Head
from brokers.rounds.snapshot import Snapshot
from brokers.tensors.reference import TensorRef
from kubeml.metrics.histogram import SECONDS, Histogram
from kubeml.metrics.job_books import MAX_JOBS, JobBook, JobBooks, bounded
from kubeml.metrics.scheduler_book import SchedulerBook
from kubeml.metrics.worker_book import WorkerBook
from kubeml.stack.ports import port_of, ports_of
from tests.jobs import make_row


def make_snap(*, now_ms: float = 10_000, **head: Any) -> Snapshot:
    known: dict[str, Any] = {"gen": "1", "state": "RUN", "epoch": 1, "slots": 2, "owner": "ps-1"}
    return Snapshot(
        head=Head(**(known | head)), contributions={}, num_live=0,
        tickets={}, optimizer={}, local={}, now_ms=now_ms,
    )  # fmt: skip


def make_contribution(slot: int, *, samples: int = 32, **timings: float) -> Contribution:
    ref = TensorRef(key="kml:{j}:c:1", num_chunks=1, num_bytes=1000, crc=0)
    return Contribution(
        cid="c", token="t", slot=slot, worker="w", attempt=1, num_samples=samples,
        tensors=ref.to_json(), timings=timings,
    )  # fmt: skip


class Ledger:
    """Failed attempts, as the round store has them."""

    def __init__(self, *kinds: str) -> None:
        self.texts = [json.dumps({"kind": kind}) for kind in kinds]
        self.num_reads = 0

    def __call__(self, first: int, last: int) -> list[str]:
        self.num_reads += 1
        return self.texts[first - 1 : last]


@given(st.lists(st.floats(min_value=0, max_value=1e6) | st.sampled_from(SECONDS)))
def test_histogram_counts_as_that_of_the_prometheus_client(values: list[float]) -> None:
    ours = Histogram()
    theirs = TheirHistogram("x", "x", registry=CollectorRegistry(), buckets=SECONDS)

    for value in values:
        ours.observe(value)
        theirs.observe(value)

    samples = next(iter(theirs.collect())).samples
    buckets = [(s.labels["le"], s.value) for s in samples if s.name == "x_bucket"]
    assert [(str(b), n) for b, n in ours.buckets()] == buckets
    assert ours.count == len(values)
    assert ours.sum == pytest.approx(math.fsum(values))


def test_failed_attempts_are_counted_once_by_reason() -> None:
    book, ledger = JobBook(), Ledger("lost", "error")

    book.look(make_snap(), 0, ledger)
    assert ledger.num_reads == 0
    book.look(make_snap(failed=2), 1, ledger)
    book.look(make_snap(failed=2), 2, ledger)
    ledger.texts.append(json.dumps({"kind": "lost"}))
    book.look(make_snap(failed=3), 3, ledger)

    assert ledger.num_reads == 2
    assert book.retries == {"lost": 2, "error": 1, "bad": 0, "drain": 0, "other": 0}


@pytest.mark.parametrize("text", ['{"kind": "err', '{"kind": "error", "why": "\\u65', "[]", "7"])
def test_a_failed_attempt_that_nobody_can_read_has_another_reason(text: str) -> None:
    book = JobBook()

    book.look(make_snap(failed=1), 0, lambda _first, _last: [text])

    assert book.retries["other"] == 1


def test_failed_attempts_of_the_next_epoch_and_generation_begin_anew() -> None:
    book = JobBook()

    book.look(make_snap(failed=1), 0, Ledger("bad"))
    book.look(make_snap(failed=1, epoch=2), 1, Ledger("lost"))
    book.look(make_snap(failed=1, epoch=2, gen="2"), 2, Ledger("drain"))

    assert dict(book.retries) == {"lost": 1, "error": 0, "bad": 1, "drain": 1, "other": 0}


def test_failed_attempts_that_the_ledger_does_not_name_are_counted_all_the_same() -> None:
    book = JobBook()

    book.look(make_snap(failed=5), 0, Ledger("bad", "something new"))

    assert (book.retries["bad"], book.retries["other"]) == (1, 4)


def test_attempts_are_counted_at_the_next_look_if_the_ledger_could_not_be_read() -> None:
    book = JobBook()

    def broken(_first: int, _last: int) -> list[str]:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - ours
        book.look(make_snap(failed=1), 0, broken)
    book.look(make_snap(failed=1), 1, Ledger("lost"))

    assert book.retries["lost"] == 1


def test_resizes_are_those_between_epochs_alone() -> None:
    book, none = JobBook(), Ledger()

    # Initialising takes one slot, whatever the job has; so does a head that was rebuilt.
    for state, epoch, slots in (
        ("INIT", 0, 1), ("RUN", 1, 2), ("VAL", 1, 2), ("PLAN", 1, 2), ("RUN", 2, 4),
        ("INIT", 0, 1), ("PLAN", 1, 1), ("RUN", 2, 4), ("RUN", 3, 3),
    ):  # fmt: skip
        book.look(make_snap(state=state, epoch=epoch, slots=slots), 0, none)

    assert dict(book.resizes) == {"up": 1, "down": 1}
    assert book.slots == 3


def test_a_row_without_validation_leaves_the_last_one() -> None:
    book = JobBook()
    first, second = make_row(1), make_row(2, train_loss=0.1)

    book.note_row(first)
    book.note_row(type(second)(**{**second.to_wire(), "val_loss": None, "accuracy": None}))

    assert (book.val_loss, book.accuracy) == (first.val_loss, first.accuracy)
    assert book.row is not None
    assert book.row.train_loss == 0.1


def test_phases_of_a_round_add_up_to_its_time() -> None:
    books = JobBooks()
    snap = make_snap(opened=9_000.0, now_ms=10_000)

    books.note_merge(
        "j", snap,
        [make_contribution(0, compute=0.4, fetch=0.1), make_contribution(1, compute=0.2)], 0.5,
    )  # fmt: skip

    sums = {phase: one.sum for phase, one in books.phase_seconds.items()}
    assert sums == pytest.approx(
        {"fetch": 0.05, "data": 0, "compute": 0.3, "push": 0, "merge": 0.5, "rest": 0.65}
    )
    assert books.round_seconds.sum == pytest.approx(1.5)
    assert books.merged_bytes == 2000
    book = books.of("j")
    assert (book.num_rounds, book.num_samples) == (1, 64)


@pytest.mark.parametrize("opened", [0, 11_000])
def test_a_clock_that_stepped_back_costs_the_rounds_duration_alone(opened: float) -> None:
    books = JobBooks()

    books.note_merge("j", make_snap(opened=opened), [make_contribution(0, compute=0.4)], 0.1)

    assert books.round_seconds.count == books.phase_seconds["rest"].count == 0
    assert books.phase_seconds["compute"].count == 1


def test_what_a_worker_says_that_is_no_time_counts_nothing() -> None:
    books = JobBooks()
    bad = [make_contribution(0, compute=math.inf, fetch=-1.0, data=math.nan)]
    bad[0].timings["push"] = "soon"  # type: ignore[index]

    books.note_merge("j", make_snap(), bad, 0.1)

    assert [books.phase_seconds[p].sum for p in ("compute", "fetch", "data", "push")] == [0] * 4


def test_initial_weights_are_no_round() -> None:
    books = JobBooks()

    books.note_merge("j", make_snap(state="INIT"), [make_contribution(0)], 0.1)

    assert books.of("j").num_rounds == 0
    assert books.merged_bytes == 0


def test_a_job_that_nobody_looks_at_is_forgotten() -> None:
    books = JobBooks(keep_s=60)
    books.look("old", make_snap(), 0, Ledger())
    books.look("new", make_snap(), 50, Ledger())

    assert set(books.current(55)) == {"old", "new"}
    assert set(books.current(70)) == {"new"}
    # Also where nobody ever scrapes.
    books.look("newest", make_snap(), 200, Ledger())
    assert set(books._books) == {"newest"}


def test_live_jobs_have_series_before_those_that_left_and_no_more_than_the_bound() -> None:
    books = JobBooks(keep_s=1e9)
    for number in range(MAX_JOBS):
        books.look(f"done-{number}", make_snap(state="DONE"), number, Ledger())
    for number in range(10):
        books.look(f"live-{number}", make_snap(), 0, Ledger())

    shown = bounded(books.current(1000))

    assert len(shown) == MAX_JOBS
    assert all(f"live-{number}" in shown for number in range(10))
    # Who left first goes first.
    assert [name for name in ("done-9", "done-10") if name in shown] == ["done-10"]


def test_a_worker_counts_what_became_of_its_slots() -> None:
    book = WorkerBook()

    book.hand_in("train", make_contribution(0, compute=2.0, fetch=1.0), "OK")
    book.hand_in("train", make_contribution(1, compute=2.0), "STALE")
    book.hand_in("init", make_contribution(0), "OK")
    book.hand_in("validate", make_contribution(0, samples=5), "OK")
    book.give_up("train", "error")

    assert book.samples == {"train": 32, "validate": 5}
    happened = {key: n for key, n in book.slots.items() if n}
    assert happened == {
        ("train", "in"): 1, ("train", "refused"): 1, ("train", "error"): 1, ("init", "in"): 1,
        ("validate", "in"): 1,
    }  # fmt: skip
    assert book.phase_seconds["compute"].sum == 2.0
    assert book.phase_seconds["push"].count == 0


def test_a_scheduler_counts_how_the_slots_change() -> None:
    book = SchedulerBook()

    for before, slots in ((0, 2), (2, 2), (2, 4), (4, 1)):
        book.note_plan("efficiency", before, slots, 0.01)

    made = {change: n for (policy, change), n in book.plans.items() if policy == "efficiency"}
    assert made == {"first": 1, "same": 1, "up": 1, "down": 1}
    assert book.plan_seconds.count == 4


def test_every_process_of_a_stack_has_a_port_of_its_own() -> None:
    assert ports_of(9101, 2) == [9101, 9102, 9103, 9104]
    assert (port_of(9101, "worker", 3), port_of(0, "worker", 3)) == (9105, 0)
    assert ports_of(0, 2) == []
