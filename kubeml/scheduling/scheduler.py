"""The scheduler: chooses the next epoch's parallelism, plans it, and dispatches its stages."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from brokers import fail_points
from brokers.messages.hint import Hint
from brokers.pool.presence import alive_nodes
from brokers.rounds.head import Head
from brokers.rounds.keeping import Keeping
from brokers.rounds.streams import JobStreams
from brokers.wire import new_id
from kubeml.backends import Backends
from kubeml.errors import Corrupted, InvalidOption, MalformedMessage, NotFound, ObjectMissing
from kubeml.jobs.plan import epoch_plan, validation_plan
from kubeml.jobs.records import PARALLEL_READS, JobRecords
from kubeml.jobs.results import EpochRow
from kubeml.jobs.scale import Scale
from kubeml.jobs.spec import STAGE_OF, JobSpec, State
from kubeml.logs import work_on
from kubeml.metrics.scheduler_book import SchedulerBook
from kubeml.pool.demand import capacity
from kubeml.scheduling.policies import LOOKS_BACK, Decision, Pool, Situation, decide

logger = logging.getLogger(__name__)

#: Sends the dispatches of a stage as one graph: stage, hints, device, label.
SendStage = Callable[[str, Sequence[Hint], str, str], None]


class Scheduler:
    """Plans epochs. Late, doubled and lost requests are harmless: PLAN is a compare-and-swap."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._records = backends.records
        self._rows = RecentRows(self._records)
        self.book = SchedulerBook()

    def step(self, hint: Hint, send_stage: SendStage) -> None:
        """Plan the job's next epoch if one is due, and dispatch the stage that is under way.

        Args:
            hint: The job.
            send_stage: Sends a group of dispatches.
        """
        store = Keeping(self._backends.redis, hint.job_id)
        work_on(hint.job_id)
        try:
            self._step(store, send_stage)
        finally:
            work_on()

    def _step(self, store: Keeping, send_stage: SendStage) -> None:
        head = store.head()
        if not head or head.stop:
            return
        work_on(store.job_id, epoch=head.epoch)
        spec = self._records.spec(store.job_id)
        if head.state == State.PLAN:
            try:
                self._plan(store, head, spec)
            except (NotFound, ObjectMissing, Corrupted, MalformedMessage, InvalidOption) as err:
                # It would fail the same way for ever: say so instead.
                reason = f"epoch {head.epoch + 1} cannot be planned: {err}"
                store.finish(head.gen, head.rid, "", to=State.FAILED, reason=reason)
                return
            head = store.head()
        stage = STAGE_OF.get(State(head.state or State.END))
        if stage is not None:
            self._dispatch(store, head, spec, stage, send_stage)

    def _plan(self, store: Keeping, head: Head, spec: JobSpec) -> None:
        started = time.monotonic()
        epoch = head.epoch + 1
        work_on(spec.id, epoch=epoch)
        manifest = self._backends.datasets.at(spec.dataset, spec.dataset_version)
        scale = self._scale(store, head, spec)
        decision = self._written(head, spec, epoch)
        if decision is None:
            decision = self._decide(spec, scale, epoch, manifest.train.num_rows)
        fail_points.reach("before_plan", job=spec.id, epoch=epoch)
        plan = epoch_plan(spec, manifest, epoch, decision.parallelism)
        validation = validation_plan(spec, manifest, plan.num_slots)
        answer = store.plan(
            head.gen,
            head.rid,
            new_id(),
            epoch=epoch,
            slots=plan.num_slots,
            rounds=plan.num_rounds,
            want=plan.want(0),
            last_want=plan.want(plan.num_rounds - 1),
            validation_slots=validation.num_slots if spec.validation_due(epoch) else 0,
            decision=decision.why,
            expected_s=decision.expected_s,
        )
        fail_points.reach("after_plan", job=spec.id, epoch=epoch)
        logger.info(
            "job %s: epoch %d with %d slots (%s): %s",
            spec.id,
            epoch,
            plan.num_slots,
            decision.why,
            answer,
        )
        if answer == "OK":
            # A generation that has planned nothing yet does not know the N of the epoch before.
            before = 0 if head.planned_at is None else head.slots
            policy = "static" if spec.static else spec.policy
            self.book.note_plan(policy, before, plan.num_slots, time.monotonic() - started)
            JobStreams(self._backends.redis, spec.id).emit(
                "epoch",
                epoch=epoch,
                epochs=spec.epochs,
                parallelism=plan.num_slots,
                rounds=plan.num_rounds,
                samples=plan.num_rows,
                decision=decision.why,
            )

    def _scale(self, store: Keeping, head: Head, spec: JobSpec) -> Scale:
        """What N and W may be, by the records: a client may have died before it told the head."""
        scale = self._records.scale(spec)
        if scale.number > head.scale:
            store.scale(head.gen, scale.number, scale.floor, scale.ceiling, scale.max_workers)
        return scale

    def _written(self, head: Head, spec: JobSpec, epoch: int) -> Decision | None:
        """What was decided for an epoch that has a row already, and is trained again.

        Its checkpoint was lost, or never written; with another N the row would tell of weights
        that are no more.
        """
        row = self._records.row(spec.id, epoch) if int(head.gen) > 1 else None
        if row is None:
            return None
        return Decision(parallelism=row.parallelism, why=row.decision, expected_s=row.expected_s)

    def _decide(self, spec: JobSpec, scale: Scale, epoch: int, num_rows: int) -> Decision:
        policy = "static" if spec.static else spec.policy
        there = capacity(alive_nodes(self._backends.redis), spec.device)
        now = Situation(
            history=self._rows.before(spec, epoch, most=LOOKS_BACK[policy]),
            initial=spec.parallelism,
            floor=min(scale.floor, num_rows),
            ceiling=min(scale.ceiling, num_rows),
            pool=Pool(capacity=there, max_workers=scale.max_workers),
            num_rows=num_rows,
            batch_size=spec.batch_size,
            k=spec.k,
            epochs_left=max(1, spec.epochs - epoch + 1),
            time_left_s=self._time_left_s(spec),
        )
        return decide(policy, now)

    def _time_left_s(self, spec: JobSpec) -> float | None:
        """Until the deadline, which counts from the submission by the submitter's clock."""
        return spec.created_at + spec.deadline_s - time.time() if spec.deadline_s else None

    def _dispatch(
        self,
        store: Keeping,
        head: Head,
        spec: JobSpec,
        stage: str,
        send_stage: SendStage,
    ) -> None:
        want = head.want
        hints = []
        for _ in range(want):
            ticket = new_id()
            if store.send(head.gen, ticket, burst=want) != "OK":
                break
            hints.append(Hint(job_id=spec.id, ticket=ticket))
        if hints:
            send_stage(stage, hints, spec.device, f"{spec.id}-e{head.epoch}-{stage}")


#: Jobs whose rows are kept; those that were planned longest ago are forgotten first.
_MOST_JOBS = 64


class RecentRows:
    """Reads the last rows of a job, each but once."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        # By the time of submission too: a deleted job's id may be used again.
        self._jobs: dict[tuple[str, float], dict[int, EpochRow]] = {}

    def before(self, spec: JobSpec, epoch: int, *, most: int) -> list[EpochRow]:
        """The rows of the epochs just before one, by epoch, without a gap; at most so many."""
        wanted = range(max(1, epoch - most), epoch)
        known = self._jobs.pop((spec.id, spec.created_at), {})
        missing = [e for e in wanted if e not in known]
        if missing:
            with ThreadPoolExecutor(min(len(missing), PARALLEL_READS)) as pool:
                read = pool.map(lambda e: self._records.row(spec.id, e), missing)
                known |= {e: row for e, row in zip(missing, read, strict=True) if row is not None}
        self._jobs[spec.id, spec.created_at] = {e: known[e] for e in wanted if e in known}
        if len(self._jobs) > _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]
        gap = max((e for e in wanted if e not in known), default=0)
        return [known[e] for e in wanted if e > gap]
