"""A worker's part in a job: TAKE a slot, do its work, CONTRIB, and again, until told to leave.

The worker's Celery tasks call ``participate``. A participant does not remember what it contributed:
it asks the round store what to do next, which alone knows. It may be killed at any line.
"""

import logging
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress

from brokers import fail_points
from brokers.messages.hint import Hint
from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.participation import Participation
from brokers.rounds.streams import JobStreams
from brokers.tensors.reference import TensorRef
from brokers.wire import new_id
from kubeml.errors import (
    Abandoned,
    BackendUnreachable,
    ChunksMissing,
    JobNotFound,
    KubemlError,
    UserCodeError,
)
from kubeml.jobs.plan import epoch_plan
from kubeml.logs import work_on
from kubeml.worker.lease import LeaseKeeper, LeaseLost
from kubeml.worker.slot_work import SlotWork
from kubeml.worker.train_ahead import Calls, RoundAhead, following
from kubeml.worker.warm import Worker

#: Celery would cut a result's text at 1,024 characters; we cut it earlier, at a place we choose.
_MAX_CHARS = 900


class Served:
    """Which slots of which rounds a participant handed in, over several epochs perhaps."""

    def __init__(self) -> None:
        self._rounds: defaultdict[int, defaultdict[int, set[int]]] = defaultdict(
            lambda: defaultdict(set)
        )

    def note(self, *, epoch: int, round_index: int, slot: int) -> None:
        """Note a contribution that was accepted."""
        self._rounds[epoch][slot].add(round_index)

    def __str__(self) -> str:
        """Return it as text, e.g. ``epoch 2: slot 0 rounds 0-7, slot 3 round 4``."""
        text = "; ".join(
            f"epoch {epoch}: "
            + ", ".join(
                f"slot {slot} {'round' if len(rounds) == 1 else 'rounds'} {_ranges(rounds)}"
                for slot, rounds in sorted(slots.items())
            )
            for epoch, slots in sorted(self._rounds.items())
        )
        if len(text) > _MAX_CHARS:
            return text[:_MAX_CHARS] + " …"
        return text or "nothing handed in"


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: ``0-3 5 7-8`` for 0, 1, 2, 3, 5, 7, 8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


logger = logging.getLogger(__name__)

#: How long a participant without work waits for the bell before it asks again.
LINGER_MS = 500


class Drained(Abandoned):
    """The worker was told to go: hand the slot back."""


def participate(
    worker: Worker, hint: Hint, stage: str, *, is_draining: Callable[[], bool] = lambda: False
) -> str:
    """Lend this process to a job until it wants no more.

    Args:
        worker: The process's connections and caches.
        hint: The job, and the ticket of the dispatch.
        stage: ``init``, ``train`` or ``validate``: what the dispatch was sent for.
        is_draining: Whether the worker was told to go.

    Returns:
        The slots and rounds that it handed in, for people.
    """
    store = Participation(worker.backends.redis, hint.job_id)
    work_on(hint.job_id, everywhere=True)
    served = Served()
    try:
        gen = store.head().gen
        if gen:
            Participant(worker, store, hint.ticket, gen, is_draining, served).run(stage)
    except BackendUnreachable as err:
        # The lease will run out, and the parameter server will ask for another worker.
        logger.warning("job %s: left: %s", hint.job_id, err)
    finally:
        work_on(everywhere=True)
    return str(served)


class Participant:
    """One execution of a worker's task. Its token is the name by which it holds slots."""

    def __init__(
        self,
        worker: Worker,
        store: Participation,
        ticket: str,
        gen: str,
        is_draining: Callable[[], bool],
        served: Served,
    ) -> None:
        self._worker, self._store, self._ticket, self._gen = worker, store, ticket, gen
        self._is_draining, self._served = is_draining, served
        self._token = new_id()
        self._stage = ""
        self._told = ""
        self._preferred: list[int] = []
        self._started = self._idle_since = time.monotonic()
        #: The answer that TAKE would give, if it is known.
        self._wait: Wait | None = None
        #: What the last slot served would train next, if this process may begin with it ahead.
        self._next: Work | None = None
        self._streams = JobStreams(worker.backends.redis, store.job_id)
        self._lease = LeaseKeeper(
            store, self._streams, gen=gen, token=self._token, stall_s=worker.settings.stall_s
        )
        self._slot_work = SlotWork(worker, store, self._token, self._on_batch)

    def run(self, stage: str) -> None:
        """Take slots until told to leave."""
        self._stage = stage
        self._lease.start()
        try:
            while not self._is_draining():
                wait, self._wait, ahead = self._wait, None, None
                answer: Work | Wait | Leave | None
                if wait is None:
                    answer = self._take(stage)
                elif self._next is None:
                    answer = self._linger(wait, stage)
                else:
                    ahead = self._train_ahead(wait, self._next)
                    answer = ahead.answer
                if isinstance(answer, Wait):
                    self._wait = answer
                    continue
                if not isinstance(answer, Work):
                    logger.debug("job %s: %s", self._store.job_id, answer)
                    return
                if ahead is None or not ahead.is_ours:
                    ahead = None
                    self._lease.begin(answer)
                self._serve(answer, stage, ahead)
                others = [slot for slot in self._preferred if slot != answer.slot]
                self._preferred = [answer.slot, *others][:8]
                self._idle_since = time.monotonic()
                # Checked after a slot's work, not before: so a process that starts with more
                # memory makes progress, too.
                if self._worker.holds_too_much(self._store.job_id):
                    break
        except Drained:
            pass
        finally:
            self._lease.stop()
        with suppress(BackendUnreachable):  # else it is missed when it does not ask again
            self._store.leave(self._gen, token=self._token, ticket=self._ticket)

    def _take(self, stage: str, *, after: Wait | None = None) -> Work | Wait | Leave:
        """Ask what to do: at once, or when the bell has rung or did not ring for a while."""
        now = time.monotonic()
        queue_length, num_first = self._worker.queue_lengths()
        return self._store.take(
            self._gen,
            token=self._token,
            ticket=self._ticket,
            stage=stage,
            preferred=self._preferred,
            queue_length=queue_length,
            num_first=num_first,
            held_ms=int((now - self._started) * 1000),
            idle_ms=int((now - self._idle_since) * 1000),
            worker=self._worker.name,
            after=after.bell if after else "",
            block_ms=min(after.due_ms or LINGER_MS, LINGER_MS) if after else 0,
        )

    def _train_ahead(self, wait: Wait, expected: Work) -> RoundAhead:
        """Train the last slot's next round until TAKE has an answer; see ``RoundAhead``."""
        warm = self._worker.job(self._store.job_id, self._gen)
        calls = Calls(
            ask=lambda wait: self._linger(wait, "train"),
            begin=self._lease.begin,
            fetch=lambda work: self._slot_work.fetch_weights(work, warm),
            train=lambda on_batch: self._slot_work.train_ahead(expected, warm, on_batch),
            own=lambda work: self._reach(work, "train", "taken", "fetched"),
            on_batch=self._on_batch,
            heed_drain=self._heed_drain,
        )
        ahead = RoundAhead(expected, calls, warm.log)
        try:
            ahead.train(wait)
        except Drained:
            if isinstance(ahead.answer, Work):
                self._give_back(ahead.answer, "drain", "the worker shuts down")
            raise
        if ahead.is_spoilt:
            self._worker.forget(self._store.job_id)
        return ahead

    def _serve(self, work: Work, stage: str, ahead: RoundAhead | None) -> None:
        """Do one slot's work, and tell the round store of whatever goes wrong."""
        self._next = None
        work_on(
            self._store.job_id,
            epoch=work.epoch,
            round_index=work.round_index,
            slot=work.slot,
            everywhere=True,
        )
        try:
            self._perform(work, stage, ahead)
        except LeaseLost:
            logger.info("job %s: slot %d was taken away", self._store.job_id, work.slot)
            self._worker.book.give_up(stage, "taken")
        except Drained:
            self._give_back(work, "drain", "the worker shuts down")
            raise
        except ChunksMissing as err:
            # It is for the parameter server to restore weights that are gone; wait for that.
            logger.warning("job %s: %s", self._store.job_id, err)
            self._give_back(work, "drain", str(err))
            self._store.wait_for_bell("$", block_ms=LINGER_MS)
        except UserCodeError as err:
            self._report(work, f"{err}\n{err.user_traceback}".rstrip())
        except JobNotFound as err:
            # The job or its dataset was deleted meanwhile: there is nothing left to do.
            self._give_back(work, "drain", str(err))
            raise Drained from err
        except BackendUnreachable as err:
            if err.backend == "s3":  # the state server answers: others need not wait for the lease
                self._give_back(work, "drain", str(err))
            raise
        except KubemlError as err:
            self._report(work, str(err) + (f"\nhint: {err.hint}" if err.hint else ""))
        except Exception as err:
            # The border of a worker: a full disk or a GPU out of memory is reported and counted,
            # rather than taken for a death.
            logger.exception("job %s: slot %d", self._store.job_id, work.slot)
            self._report(work, f"{type(err).__name__}: {err}\n{traceback.format_exc()}")
        finally:
            self._lease.end()
            work_on(self._store.job_id, everywhere=True)

    def _reach(self, work: Work, stage: str, *points: str) -> None:
        fail_points.at(
            job=self._store.job_id,
            stage=stage,
            epoch=work.epoch,
            round=work.round_index,
            slot=work.slot,
            attempt=work.attempt,
        )
        for point in points:
            fail_points.reach(point)

    def _perform(self, work: Work, stage: str, ahead: RoundAhead | None) -> None:
        if ahead is None:
            self._reach(work, stage, "taken")
        warm = self._worker.job(self._store.job_id, self._gen)
        self._lease.log = warm.log
        warm.log.at(work.epoch, work.round_index, work.slot)
        with self._worker.channel.parcel() as parcel:
            if stage == "init":
                contribution = self._slot_work.initialise(work, warm)
            elif stage == "train":
                contribution = self._slot_work.train(work, warm, ahead, parcel)
            else:
                contribution = self._slot_work.validate(work, warm)
            self._lease.forward()  # before the round can end: the job's log is closed with it
            if fail_points.reach("before_contrib") == "dup":
                parcel.finish()
                self._store.contribute(self._gen, work.rid, contribution)
            answer, self._wait = self._store.contribute(
                self._gen, work.rid, contribution, parcel=parcel
            )
        self._worker.book.hand_in(stage, contribution, answer)
        fail_points.reach("after_contrib")
        if answer == "OK":
            self._served.note(epoch=work.epoch, round_index=work.round_index, slot=work.slot)
        if answer != "OK":
            logger.info("job %s: slot %d: %s", self._store.job_id, work.slot, answer)
            self._drop(contribution, answer, is_kept=warm.spec.overlap)
        elif stage == "train" and warm.spec.overlap:
            plan = epoch_plan(warm.spec, warm.manifest, work.epoch, work.num_slots)
            if plan.num_samples(work.round_index + 1, work.slot):
                self._next = following(work, contribution)

    def _linger(self, wait: Wait, stage: str) -> Work | Wait | Leave:
        """Ask again at the bell; if a complete round is not merged meanwhile, send a hint of it."""
        fail_points.reach("waiting")
        answer = self._take(stage, after=wait)
        if wait.is_complete and isinstance(answer, Wait) and answer.bell == wait.bell != self._told:
            # The job's own parameter server may be dead: a message reaches any of them.
            self._told = wait.bell
            with suppress(BackendUnreachable):  # only a hint: the next tick does without it
                self._worker.backends.dispatcher.hint(self._store.job_id)
        return answer

    def _on_batch(self, index: int) -> None:
        self._worker.book.num_batches += 1
        self._lease.on_batch(index)
        fail_points.reach("mid_train", batch=index)
        self._heed_drain()

    def _heed_drain(self) -> None:
        if self._is_draining():
            raise Drained

    def _report(self, work: Work, why: str) -> None:
        """Report a failure of the function itself; too many of them fail the job."""
        place = f"epoch {work.epoch}, round {work.round_index}, slot {work.slot}"
        logger.warning("job %s: %s: %s", self._store.job_id, place, why.splitlines()[0])
        # The failed attempt may have left the model in any state: load it afresh next time.
        self._worker.forget(self._store.job_id)
        self._give_back(work, "error", why)
        self._streams.emit(
            "retry", epoch=work.epoch, round=work.round_index, slot=work.slot, why=why
        )

    def _give_back(self, work: Work, kind: str, why: str) -> None:
        self._worker.book.give_up(self._stage, kind)
        self._store.kick(self._gen, work.rid, slot=work.slot, who=self._token, kind=kind, why=why)

    def _drop(self, contribution: Contribution, answer: str, *, is_kept: bool) -> None:
        """Delete tensors that were pushed in vain.

        A STALE contribution may have been merged all the same, and only its reply lost.

        Args:
            contribution: The contribution that was refused.
            answer: The round store's answer.
            is_kept: Whether the tensors are needed even after their merge.
        """
        refs = [] if is_kept else [contribution.tensors]
        if answer in {"LOST", "DUPLICATE"}:
            refs = [contribution.tensors, contribution.optimizer]
        self._worker.channel.drop(*(TensorRef.from_json(text) for text in refs if text))
