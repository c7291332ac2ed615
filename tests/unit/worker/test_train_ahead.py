"""Training a round ahead of TAKE's answer: what becomes of it when the answer comes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from brokers import fail_points
from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from kubeml.errors import Abandoned, BackendUnreachable
from kubeml.runtime.function import RoundResult
from kubeml.worker.function_log import FunctionLog, function_logger
from kubeml.worker.train_ahead import Calls, RoundAhead, following

NUM_BATCHES = 4

DONE = Work(
    slot=1, rid="r", epoch=2, round_index=3, version=9, weights=None, num_slots=2, attempt=1,
    optimizer="", local="before",
)  # fmt: skip
MADE = Contribution(
    cid="c", token="t", slot=1, worker="w", attempt=1, num_samples=8, tensors="made", optimizer="o"
)
EXPECTED = following(DONE, MADE)
GIVEN = replace(EXPECTED, rid="r2", attempt=2)
RESULT = RoundResult(
    contribution=bytearray(b"x"), optimizer_state=None, num_samples=8, num_steps=NUM_BATCHES,
    loss=0.0, rows_s=1.0, data_s=1.0, compute_s=1.0, pack_s=1.0,
)  # fmt: skip


@dataclass
class Course:
    """A participant that is answered after so many batches, or when it has trained to the end."""

    answer: Work | Leave | Exception
    after_batches: int = NUM_BATCHES
    raises_after: int = -1
    is_draining: bool = False
    told: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_answer = threading.Event()
        self.log = FunctionLog("w")
        self.logger = function_logger("unit-overlap", self.log)
        calls = Calls(
            ask=self.ask, fetch=lambda _: None, train=self.train,
            begin=lambda work: self.told.append(("begin", work)),
            own=lambda work: self.told.append("own"), on_batch=self.told.append,
            heed_drain=self.heed_drain,
        )  # fmt: skip
        self.ahead = RoundAhead(EXPECTED, calls, self.log)

    def ask(self, _wait: Wait) -> Work | Wait | Leave:
        if not self.may_answer.wait(0.01):
            return Wait(bell="0-0")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def train(self, on_batch: Callable[[int], None]) -> RoundResult:
        for index in range(NUM_BATCHES):
            self.logger.info("batch %d", index)
            if index == self.raises_after:
                self.may_answer.set()
                raise ValueError("the user's")
            if index == self.after_batches:
                self.may_answer.set()
                self.ahead._answered.wait(5)  # or the batch is over too soon
            on_batch(index)
        self.may_answer.set()
        return RESULT

    def heed_drain(self) -> None:
        if self.is_draining:
            self.may_answer.set()
            self.ahead._answered.wait(5)  # the worst moment
            raise Abandoned

    def lines(self) -> list[object]:
        sent: list[object] = []
        self.log.drain(lambda lines: sent.extend((x["round"], x["text"]) for x in lines))
        return sent


def test_what_follows_is_known_but_for_the_round_and_its_weights() -> None:
    assert (EXPECTED.round_index, EXPECTED.version, EXPECTED.slot) == (4, 10, 1)
    assert (EXPECTED.local, EXPECTED.optimizer) == ("made", "o")


@pytest.mark.parametrize("after", [0, 2, NUM_BATCHES])
def test_work_that_is_given_out_is_the_work_trained_ahead(after: int) -> None:
    course = Course(GIVEN, after_batches=after)

    answer = course.ahead.train(Wait(bell="0-0"))

    result, ahead_s = course.ahead.result()
    assert answer == GIVEN
    assert course.ahead.is_ours
    assert result.contribution == b"x"
    assert course.told == [("begin", GIVEN), "own", *range(after, NUM_BATCHES)]
    assert course.lines() == [(4, f"batch {index}") for index in range(NUM_BATCHES)]
    # What lay before it was given out is in none of the phases.
    phases_s = result.rows_s + result.data_s + result.compute_s + result.pack_s
    assert phases_s + ahead_s == pytest.approx(4.0)
    assert ahead_s > 0


@pytest.mark.parametrize("after", [1, NUM_BATCHES])
@pytest.mark.parametrize(
    "other",
    [
        replace(GIVEN, slot=0),
        replace(GIVEN, round_index=3),
        replace(GIVEN, version=11),
        replace(GIVEN, local="another's"),
        replace(GIVEN, optimizer="another"),
        Leave(why="end"),
    ],
    ids=["slot", "round", "version", "local", "optimizer", "leave"],
)
def test_anything_else_drops_it_with_its_log_lines(other: Work | Leave, after: int) -> None:
    course = Course(other, after_batches=after)

    answer = course.ahead.train(Wait(bell="0-0"))

    assert answer == other
    assert not course.ahead.is_ours
    assert course.lines() == []
    # A lease, even of other work, is kept alive while the batch in hand goes on.
    assert course.told == ([("begin", other)] if isinstance(other, Work) else [])


def test_an_exception_before_it_is_given_out_is_not_told() -> None:
    course = Course(GIVEN, raises_after=1)

    answer = course.ahead.train(Wait(bell="0-0"))

    assert answer == GIVEN
    assert not course.ahead.is_ours
    assert course.ahead.is_spoilt
    assert course.lines() == []


def test_an_exception_after_that_is_the_works_own() -> None:
    course = Course(GIVEN, after_batches=0, raises_after=2)

    course.ahead.train(Wait(bell="0-0"))

    assert course.ahead.is_ours
    with pytest.raises(ValueError, match="the user's"):
        course.ahead.result()


def test_fail_points_of_batches_trained_ahead_are_reached_once_it_is_given_out() -> None:
    course = Course(GIVEN, after_batches=2)
    fail_points.install("worker.mid_train=raise@batch=0", "worker")

    try:
        course.ahead.train(Wait(bell="0-0"))
    finally:
        fail_points.install("", "worker")

    assert course.told == [("begin", GIVEN), "own"]
    with pytest.raises(RuntimeError, match="mid_train"):
        course.ahead.result()


def test_who_is_to_go_says_which_slot_it_holds() -> None:
    course = Course(GIVEN, is_draining=True)

    with pytest.raises(Abandoned):
        course.ahead.train(Wait(bell="0-0"))

    assert course.ahead.answer == GIVEN
    assert not course.ahead.is_ours


def test_a_take_that_fails_is_told_at_once() -> None:
    course = Course(BackendUnreachable(backend="redis", where="there"), after_batches=1)

    with pytest.raises(BackendUnreachable):
        course.ahead.train(Wait(bell="0-0"))

    assert course.told == []
