"""Does one slot's work in one round: it turns what TAKE gave out into a contribution."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from brokers import fail_points
from brokers.rounds.answers import Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.store import RoundStore
from brokers.tensors.parcel import Parcel
from brokers.wire import new_id
from kubeml.errors import ChunksMissing
from kubeml.jobs.plan import epoch_plan, shards_ahead, stream_seed, validation_plan
from kubeml.runtime.local_weights import corrected, widened
from kubeml.weights.layout import pack_initial
from kubeml.weights.wire_format import WireFormat
from kubeml.worker.train_ahead import RoundAhead
from kubeml.worker.warm import WarmJob, Worker

if TYPE_CHECKING:
    from kubeml.runtime.function import RoundResult


class SlotWork:
    """Does the work of slots, for one participant.

    Args:
        worker: The process's connections and caches.
        store: The job's round store.
        token: The participant's token.
        on_batch: Called after every batch with its index; may raise to abandon the work.
    """

    def __init__(
        self, worker: Worker, store: RoundStore, token: str, on_batch: Callable[[int], None]
    ) -> None:
        self._worker, self._store, self._token = worker, store, token
        self._on_batch = on_batch

    def initialise(self, work: Work, warm: WarmJob) -> Contribution:
        """Hand in the network's initial weights."""
        spec = warm.spec
        # This process will most likely train a slot in a moment; the first slot, if it is quick.
        warm.prefetcher.ahead(
            shards_ahead(spec, warm.manifest, epoch=1, num_slots=spec.parallelism)
        )
        runtime = warm.runtime
        blob = pack_initial(runtime.layout, runtime.weights(), runtime.frozen())
        cid = new_id()
        ref = self._worker.channel.push(self._store.key("c", cid), blob)
        return self._contribution(work, cid, warm, num_samples=1, tensors=ref.to_json())

    def train(
        self, work: Work, warm: WarmJob, ahead: RoundAhead | None, parcel: Parcel
    ) -> Contribution:
        """Train the slot's rows of this round, unless that was done ahead.

        Args:
            work: The work to do.
            warm: The job.
            ahead: The part of it that was done ahead, if any.
            parcel: Takes the result to the state server.

        Raises:
            UserCodeError: The user's code raised.
            ChunksMissing: The weights to begin with are gone.
        """
        started, ahead_s = time.perf_counter(), 0.0
        merged = self.fetch_weights(work, warm)
        if ahead is None:
            optimizer = self._load_start(work, warm)
            fetched = time.perf_counter()
            fail_points.reach("fetched")
            result = self._train_rows(work, warm, optimizer, self._on_batch)
        else:
            fetched = time.perf_counter()
            result, ahead_s = ahead.result()
        trained = time.perf_counter()
        cid = new_id()
        channel = self._worker.channel
        contribution = result.contribution
        if work.local:
            start = warm.local.get(work.slot, work.local, channel)
            layout = warm.runtime.layout
            contribution = corrected(layout, merged=merged, start=start, end=contribution)
        state = ""
        ref = parcel.add(self._store.key("c", cid), contribution, is_passing=True)
        if result.optimizer_state is not None:
            state = parcel.add(self._store.key("o", cid), result.optimizer_state).to_json()
            warm.optimizer.keep(work.slot, state, result.optimizer_state)
        if not warm.spec.overlap:
            warm.contribution = contribution  # its memory is used again
        else:
            warm.local.keep(work.slot, ref.to_json(), contribution)
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
                **({"ahead": ahead_s} if warm.spec.overlap else {}),
            },
        )

    def validate(self, work: Work, warm: WarmJob) -> Contribution:
        """Validate the slot's rows; see ``train``."""
        spec = warm.spec
        plan = validation_plan(spec, warm.manifest, work.num_slots)
        self._worker.load_weights(warm, self.fetch_weights(work, warm))
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

    def train_ahead(
        self, expected: Work, warm: WarmJob, on_batch: Callable[[int], None]
    ) -> "RoundResult":
        """Train a round that is expected to be given out next, and push nothing."""
        return self._train_rows(expected, warm, self._load_start(expected, warm), on_batch)

    def fetch_weights(self, work: Work, warm: WarmJob) -> bytearray:
        """Return the merged weights that the round begins with, from memory if they are there.

        Raises:
            ChunksMissing, Corrupted: They are gone, or were changed.
        """
        if work.weights is None:
            raise ChunksMissing(key="weights", missing=1, expected=1)
        if warm.weights != work.weights or warm.blob is None:
            warm.weights = None  # the blob's memory is undefined until all of it has arrived
            warm.blob = self._worker.channel.pull(work.weights, into=warm.blob)
            warm.weights = work.weights
        return warm.blob

    def _load_start(self, work: Work, warm: WarmJob) -> bytes | None:
        """Put the slot's first weights into the network, and return its optimizer state."""
        if work.local:
            start = warm.local.get(work.slot, work.local, self._worker.channel)
            self._worker.load_weights(warm, widened(warm.runtime.layout, start))
        else:
            self._worker.load_weights(warm, self.fetch_weights(work, warm))
        if not work.optimizer:
            return None
        return bytes(warm.optimizer.get(work.slot, work.optimizer, self._worker.channel))

    def _train_rows(
        self, work: Work, warm: WarmJob, optimizer: bytes | None, on_batch: Callable[[int], None]
    ) -> "RoundResult":
        spec = warm.spec
        plan = epoch_plan(spec, warm.manifest, work.epoch, work.num_slots)
        # This round's shards, too: its rows may be in many, which come faster side by side.
        warm.prefetcher.ahead(
            shards_ahead(
                spec,
                warm.manifest,
                epoch=work.epoch,
                num_slots=work.num_slots,
                round_index=work.round_index,
                slot=work.slot,
            )
        )
        return warm.runtime.train_round(
            epoch=work.epoch,
            slot=work.slot,
            num_slots=work.num_slots,
            lr=spec.lr,
            batch_size=spec.batch_size,
            rows=plan.rows(work.round_index, work.slot),
            seed=stream_seed(spec.seed, work.epoch, work.round_index, work.slot),
            optimizer_state_policy=spec.optimizer_state,
            optimizer_state=optimizer,
            on_batch=on_batch,
            wire=WireFormat(spec.wire),
            base=warm.blob,
            into=warm.contribution,
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
