"""A worker's part in a job: TAKE a slot, do its work, CONTRIB, and again, until told to leave.

It keeps no memory of what it has contributed: what to do next is asked of the round store, which
alone knows. Everything here may be killed at any line.
"""

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from brokers import fail_points
from brokers.connections import MAX_BLOCK_MS
from brokers.protocol import Contribution, Hint, TensorRef
from brokers.round_store import Leave, RoundStore, Wait, Work, new_id
from brokers.streams import JobStreams
from kubeml import initial
from kubeml.errors import (
    Abandoned,
    BackendUnreachable,
    ChunksMissing,
    JobNotFound,
    KubemlError,
    UserCodeError,
)
from kubeml.job_plans import epoch_plan, shards_ahead, validation_plan
from kubeml.lease_keeper import LeaseKeeper, LeaseLost
from kubeml.plan import stream_seed
from kubeml.worker import WarmJob, Worker

logger = logging.getLogger(__name__)

#: How long a participant without work waits for the bell before it asks again.
LINGER_MS = 500

#: Optimizer states kept in memory: those of the last slots served.
_STATES_KEPT = 2


class Drained(Abandoned):
    """The worker is to go: hand the slot back."""


def participate(
    worker: Worker, hint: Hint, stage: str, *, is_draining: Callable[[], bool] = lambda: False
) -> None:
    """Lend this process to a job until it wants no more.

    Args:
        worker: The process's connections and caches.
        hint: The job, and the ticket of the dispatch.
        stage: ``init``, ``train`` or ``validate``: what the dispatch was sent for.
        is_draining: Whether the worker was told to go.
    """
    store = RoundStore(worker.client, hint.job_id)
    try:
        gen = store.head().get("gen", "")
        if gen:
            Participant(worker, store, hint.ticket, gen, is_draining).run(stage)
    except BackendUnreachable as err:
        # The lease runs out and the parameter server asks for somebody else.
        logger.warning("job %s: left: %s", hint.job_id, err)


class Participant:
    """One execution of a worker's task; its token is the name by which it holds slots."""

    def __init__(
        self,
        worker: Worker,
        store: RoundStore,
        ticket: str,
        gen: str,
        is_draining: Callable[[], bool],
    ) -> None:
        self._worker, self._store, self._ticket, self._gen = worker, store, ticket, gen
        self._is_draining = is_draining
        self._token = new_id()
        self._told = ""
        self._streams = JobStreams(worker.client, store.job_id)
        self._lease = LeaseKeeper(
            store, self._streams, gen=gen, token=self._token, stall_s=worker.settings.stall_s
        )

    def run(self, stage: str) -> None:
        """Take slots until told to leave."""
        self._lease.start()
        started = idle_since = time.monotonic()
        preferred: list[int] = []
        try:
            while not self._is_draining():
                now = time.monotonic()
                answer = self._store.take(
                    self._gen,
                    token=self._token,
                    ticket=self._ticket,
                    stage=stage,
                    preferred=preferred,
                    queue_length=self._worker.queue_length(),
                    held_ms=int((now - started) * 1000),
                    idle_ms=int((now - idle_since) * 1000),
                    worker=self._worker.name,
                )
                if isinstance(answer, Leave):
                    logger.debug("job %s: %s", self._store.job_id, answer.why)
                    return
                if isinstance(answer, Wait):
                    fail_points.reach("waiting")
                    self._linger(answer)
                    continue
                self._serve(answer, stage)
                preferred = [answer.slot, *(s for s in preferred if s != answer.slot)][:8]
                idle_since = time.monotonic()
        except Drained:
            return
        finally:
            self._lease.stop()

    def _serve(self, work: Work, stage: str) -> None:
        """Do one slot's work; whatever goes wrong is told to the round store."""
        self._lease.begin(work)
        fail_points.at(
            job=self._store.job_id, stage=stage, epoch=work.epoch, round=work.round_index,
            slot=work.slot, attempt=work.attempt,
        )  # fmt: skip
        try:
            fail_points.reach("taken")
            self._perform(work, stage)
        except LeaseLost:
            logger.info("job %s: slot %d was taken away", self._store.job_id, work.slot)
        except Drained:
            self._give_back(work, "drain", "the worker shuts down")
            raise
        except ChunksMissing as err:
            # Weights that are gone are the parameter server's matter; wait for what it does.
            logger.warning("job %s: %s", self._store.job_id, err)
            self._give_back(work, "drain", str(err))
            self._store.wait_for_bell("$", block_ms=LINGER_MS)
        except UserCodeError as err:
            self._report(work, f"{err}\n{err.user_traceback}".rstrip())
        except JobNotFound as err:
            # Deleted meanwhile: nothing here is ours to do.
            self._give_back(work, "drain", str(err))
            raise Drained from err
        except BackendUnreachable:
            raise
        except KubemlError as err:
            self._report(work, str(err) + (f"\nhint: {err.hint}" if err.hint else ""))
        except Exception as err:
            # The border of a worker: a full disk or a GPU out of memory is told and counted
            # rather than left to look like a death.
            logger.exception("job %s: slot %d", self._store.job_id, work.slot)
            self._report(work, f"{type(err).__name__}: {err}\n{traceback.format_exc()}")
        finally:
            self._lease.end()

    def _perform(self, work: Work, stage: str) -> None:
        warm = self._worker.job(self._store.job_id, self._gen)
        self._lease.log = warm.log
        warm.log.at(work.epoch, work.round_index, work.slot)
        if stage == "init":
            contribution = self._initialise(work, warm)
        elif stage == "train":
            contribution = self._train(work, warm)
        else:
            contribution = self._validate(work, warm)
        self._lease.forward()  # before the round can end: the job's log is closed with it
        if fail_points.reach("before_contrib") == "dup":
            self._store.contribute(self._gen, work.rid, contribution)
        answer, _, _ = self._store.contribute(self._gen, work.rid, contribution)
        fail_points.reach("after_contrib")
        if answer != "OK":
            logger.info("job %s: slot %d: %s", self._store.job_id, work.slot, answer)
            self._drop(contribution, answer)

    def _linger(self, answer: Wait) -> None:
        """Wait for the bell; if a complete round is not merged meanwhile, send word of it."""
        block_ms = min(LINGER_MS, MAX_BLOCK_MS)
        if self._store.wait_for_bell(answer.bell, block_ms=block_ms) or not answer.is_complete:
            return
        if self._told == answer.bell:
            return
        # Whoever looks after the job may be dead: a message reaches any parameter server.
        self._told = answer.bell
        with suppress(BackendUnreachable):  # a hint: the next tick does without
            self._worker.dispatcher.hint(self._store.job_id)

    def _initialise(self, work: Work, warm: WarmJob) -> Contribution:
        runtime, spec = warm.runtime, warm.spec
        # It will most likely train a slot in a moment, the first one if it is quick.
        warm.prefetcher.ahead(
            shards_ahead(spec, warm.manifest, epoch=1, num_slots=spec.parallelism)
        )
        blob = initial.pack(runtime.layout, runtime.weights(), runtime.frozen())
        cid = new_id()
        ref = self._worker.channel.push(self._store.key("c", cid), blob)
        return self._contribution(work, cid, warm, num_samples=1, tensors=ref.to_json())

    def _train(self, work: Work, warm: WarmJob) -> Contribution:
        spec, started = warm.spec, time.perf_counter()
        plan = epoch_plan(spec, warm.manifest, work.epoch, work.num_slots)
        # This round's too: its rows may be in many shards, which come quicker side by side.
        warm.prefetcher.ahead(
            shards_ahead(
                spec, warm.manifest, epoch=work.epoch, num_slots=work.num_slots,
                round_index=work.round_index, slot=work.slot,
            )
        )  # fmt: skip
        self._load_weights(work, warm)
        optimizer = self._optimizer_state(work, warm)
        fetched = time.perf_counter()
        fail_points.reach("fetched")
        result = warm.runtime.train_round(
            epoch=work.epoch,
            slot=work.slot,
            num_slots=work.num_slots,
            lr=spec.lr,
            batch_size=spec.batch_size,
            rows=plan.rows(work.round_index, work.slot),
            seed=stream_seed(spec.seed, work.epoch, work.round_index, work.slot),
            optimizer_state_policy=spec.optimizer_state,
            optimizer_state=optimizer,
            on_batch=self._on_batch,
        )
        trained = time.perf_counter()
        cid = new_id()
        channel = self._worker.channel
        ref = channel.push(self._store.key("c", cid), result.contribution)
        state = ""
        if result.optimizer_state is not None:
            pushed = channel.push(self._store.key("o", cid), result.optimizer_state)
            state = pushed.to_json()
            warm.optimizer.pop(work.slot, None)
            warm.optimizer[work.slot] = (state, result.optimizer_state)
            while len(warm.optimizer) > _STATES_KEPT:
                del warm.optimizer[next(iter(warm.optimizer))]
        return self._contribution(
            work,
            cid,
            warm,
            num_samples=result.num_samples,
            num_steps=result.num_steps,
            loss=result.loss,
            tensors=ref.to_json(),
            optimizer=state,
            timings={
                "fetch": fetched - started + result.rows_s,
                "data": result.data_s,
                "compute": result.compute_s,
                "push": result.pack_s + time.perf_counter() - trained,
            },
        )

    def _validate(self, work: Work, warm: WarmJob) -> Contribution:
        spec = warm.spec
        plan = validation_plan(spec, warm.manifest, work.num_slots)
        self._load_weights(work, warm)
        result = warm.runtime.validate(
            epoch=work.epoch,
            slot=work.slot,
            num_slots=work.num_slots,
            batch_size=spec.batch_size,
            rows=plan.rows(0, work.slot),
            seed=stream_seed(spec.seed, work.epoch, "validation", work.slot),
            on_batch=self._on_batch,
        )
        return self._contribution(
            work,
            new_id(),
            warm,
            num_samples=result.num_samples,
            loss=result.loss,
            accuracy=result.accuracy,
        )

    def _contribution(self, work: Work, cid: str, warm: WarmJob, **facts: object) -> Contribution:
        return Contribution(
            cid=cid,
            token=self._token,
            slot=work.slot,
            worker=self._worker.name,
            attempt=work.attempt,
            layout=warm.runtime.layout.hash,
            **facts,  # type: ignore[arg-type]
        )

    def _load_weights(self, work: Work, warm: WarmJob) -> None:
        if work.weights is None:
            raise ChunksMissing(key="weights", missing=1, expected=1)
        if warm.weights != work.weights or warm.blob is None:
            warm.blob = self._worker.channel.pull(work.weights)
            warm.weights = work.weights
        self._worker.load_weights(warm, warm.blob)

    def _optimizer_state(self, work: Work, warm: WarmJob) -> bytes | None:
        """The slot's optimizer state: from memory if this process made it, else from the store."""
        if not work.optimizer:
            return None
        made = warm.optimizer.get(work.slot)
        if made is not None and made[0] == work.optimizer:
            return made[1]
        return bytes(self._worker.channel.pull(TensorRef.from_json(work.optimizer)))

    def _on_batch(self, index: int) -> None:
        self._lease.on_batch(index)
        fail_points.reach("mid_train", batch=index)
        if self._is_draining():
            raise Drained

    def _report(self, work: Work, why: str) -> None:
        """Tell of a failure that is the function's own; too many of them fail the job."""
        place = f"epoch {work.epoch}, round {work.round_index}, slot {work.slot}"
        logger.warning("job %s: %s: %s", self._store.job_id, place, why.splitlines()[0])
        # A failed attempt may have left the model in any state: load it afresh.
        self._worker.forget(self._store.job_id)
        self._give_back(work, "error", why)
        self._streams.emit(
            "retry", epoch=work.epoch, round=work.round_index, slot=work.slot, why=why
        )

    def _give_back(self, work: Work, kind: str, why: str) -> None:
        self._store.kick(self._gen, work.rid, slot=work.slot, who=self._token, kind=kind, why=why)

    def _drop(self, contribution: Contribution, answer: str) -> None:
        """Forget what was pushed in vain. A STALE one may have been merged, its reply lost."""
        refs = [contribution.tensors]
        if answer in {"LOST", "DUPLICATE"}:
            refs.append(contribution.optimizer)
        self._worker.channel.drop(*(TensorRef.from_json(text) for text in refs if text))
