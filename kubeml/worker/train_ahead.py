"""Trains a slot's next round while the merge of the last one is under way (``--overlap``).

A slot begins the next round with its local weights (see ``kubeml.runtime.local_weights``). This
process has them, so it can train before the round is opened. Meanwhile a thread goes on asking
TAKE. If TAKE gives out that very work, it is done already. If TAKE gives out other work, the
participant drops what it trained and begins as usual. The round store knows nothing of this.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeGuard

from brokers import fail_points
from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from kubeml.errors import Abandoned, KubemlError
from kubeml.worker.function_log import FunctionLog

if TYPE_CHECKING:
    from kubeml.runtime.function import RoundResult

logger = logging.getLogger(__name__)

OnBatch = Callable[[int], None]

#: While it waits for the answer, trained to the end, it checks this often whether it must go.
_LOOK_EVERY_S = 0.1


class Overtaken(Abandoned):
    """TAKE gave out other work than what is trained ahead: drop that."""


def following(work: Work, made: Contribution) -> Work:
    """Return what TAKE will give out once this contribution is merged, as far as can be known."""
    return replace(
        work,
        rid="",
        round_index=work.round_index + 1,
        version=work.version + 1,
        weights=None,
        attempt=1,
        optimizer=made.optimizer,
        local=made.tensors,
    )


@dataclass(frozen=True, kw_only=True)
class Calls:
    """What training ahead calls in the participant.

    Attributes:
        ask: Calls TAKE again, when the bell has rung or did not ring for a while.
        begin: Keeps the lease of this work alive from now on.
        fetch: Fetches the merged weights of this work, which are needed once it is trained.
        train: Trains the expected work, and calls the given function after every batch.
        own: Notes that this work is ours.
        on_batch: Called after every batch from then on.
        heed_drain: Raises ``Abandoned`` if the worker was told to go.
    """

    ask: Callable[[Wait], Work | Wait | Leave]
    begin: Callable[[Work], None]
    fetch: Callable[[Work], object]
    train: Callable[[OnBatch], "RoundResult"]
    own: Callable[[Work], None]
    on_batch: Callable[[int], None]
    heed_drain: Callable[[], None]


class RoundAhead:
    """One round of a slot, trained before it is given out.

    Args:
        expected: The work to train; see ``following``.
        calls: A thread makes the first three of them; the thread that calls ``train`` the others.
        log: The function's log; lines of work done in vain are dropped.
    """

    def __init__(self, expected: Work, calls: Calls, log: FunctionLog) -> None:
        self._expected, self._calls, self._log = expected, calls, log
        self._answered, self._stopped = threading.Event(), threading.Event()
        self._began_at = self._given_at = 0.0
        self._num_batches = 0
        self._result: RoundResult | None = None
        self._failure: Exception | None = None
        self._ask_failure: Exception | None = None
        #: TAKE's final answer; None if that was not waited for.
        self.answer: Work | Leave | None = None
        #: Whether the work that was given out is the one that was trained: then ``result`` has it.
        self.is_ours = False
        #: Whether training failed before the answer came, so that the model may be in any state.
        self.is_spoilt = False

    def train(self, first: Wait) -> Work | Leave:
        """Train until other work is given out, or to the end, and return TAKE's answer.

        Args:
            first: TAKE's answer so far.

        Raises:
            Abandoned: The worker was told to go. A slot in ``answer`` is held all the same.
            KubemlError: TAKE could not be asked.
        """
        thread = threading.Thread(target=self._ask, args=(first,), name="kubeml-ahead", daemon=True)
        self._log.at(self._expected.epoch, self._expected.round_index, self._expected.slot)
        self._log.hold()
        self._began_at = time.perf_counter()
        thread.start()
        try:
            self._try()
            self._wait_for_answer()
        finally:
            self._stopped.set()
            thread.join()
            self._log.settle(keep=self.is_ours)
        if self.answer is None:
            raise self._ask_failure or Overtaken
        return self.answer

    def result(self) -> tuple["RoundResult", float]:
        """Return the round's result, and how many seconds of it were before it was given out.

        The result's own times are those after that: a round's phases must add up to the time from
        its being given out to its being handed in.

        Raises:
            Exception: Whatever was raised after it was given out.
        """
        if self._failure is not None or self._result is None:
            raise self._failure or Overtaken
        made = self._result
        whole_s = made.rows_s + made.data_s + made.compute_s + made.pack_s
        ahead_s = min(whole_s, max(0.0, self._given_at - self._began_at))
        rest = 1 - ahead_s / whole_s if whole_s else 0.0
        times = {
            name: getattr(made, name) * rest for name in ("rows_s", "data_s", "compute_s", "pack_s")
        }
        return replace(made, **times), ahead_s

    def _ask(self, answer: Work | Wait | Leave) -> None:
        """Ask, in a thread, until the answer is no longer to wait."""
        try:
            while isinstance(answer, Wait):
                answer = self._calls.ask(answer)
                if self._stopped.is_set() and isinstance(answer, Wait):
                    return
            self.answer = answer
            if isinstance(answer, Work):
                # At once, be it ours or not: the batch in hand may take longer than a lease.
                self._calls.begin(answer)
                self._given_at = time.perf_counter()
            self._answered.set()
            if self._is_expected(answer):
                with suppress(KubemlError):  # raised again where the weights are needed
                    self._calls.fetch(answer)
        except Exception as err:  # noqa: BLE001 - raised again by `_wait_for_answer`
            self._ask_failure = err
        finally:
            self._answered.set()

    def _try(self) -> None:
        try:
            self._result = self._calls.train(self._after_batch)
        except Overtaken:
            return
        except Exception as err:
            if self.is_ours:
                self._failure = err
            elif isinstance(err, Abandoned):
                raise
            else:
                # The participant that is given the round meets it, too, and reports it.
                logger.info("trained ahead in vain: %s", err)
                self.is_spoilt = True

    def _after_batch(self, index: int) -> None:
        if not self.is_ours:
            self._num_batches = index
            self._calls.heed_drain()
            if not self._answered.is_set():
                return
            self._settle()
        self._calls.on_batch(index)

    def _wait_for_answer(self) -> None:
        while not self._answered.wait(_LOOK_EVERY_S):
            self._calls.heed_drain()
        if self._result is None or self.is_ours:
            return
        self._num_batches = self._result.num_steps
        try:
            self._settle()
        except Overtaken:
            self._result = None
        except Exception as err:  # noqa: BLE001 - raised again by ``result``
            self._failure = err

    def _settle(self) -> None:
        if not self._is_expected(self.answer):
            raise Overtaken
        self.is_ours = True
        self._log.settle(keep=True)
        self._calls.own(self.answer)
        for index in range(self._num_batches):
            fail_points.reach("mid_train", batch=index)

    def _is_expected(self, answer: Work | Wait | Leave | None) -> TypeGuard[Work]:
        return (
            isinstance(answer, Work)
            and replace(answer, rid="", weights=None, attempt=1, is_copy=False) == self._expected
        )
