"""One training job, as the client sees it: its state, history, events, logs, weights."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from brokers.rounds.events import Event, LogLine
from brokers.rounds.store import RoundStore
from kubeml.analysis.explain import JobTimes, explain_job
from kubeml.backends import Backends
from kubeml.client.follow import Follower
from kubeml.client.infer import infer
from kubeml.client.rescaling import rescale
from kubeml.client.resumption import resume
from kubeml.client.state_dict import load_state_dict
from kubeml.client.status import StatusReader
from kubeml.client.timed_epochs import timed_epochs
from kubeml.errors import (
    BackendUnreachable,
    Conflict,
    Corrupted,
    JobFailed,
    JobStopped,
    KubemlError,
    ObjectMissing,
    TimedOut,
)
from kubeml.jobs.checkpoint import Checkpoint
from kubeml.jobs.results import EpochRow, JobEnd, JobStatus
from kubeml.jobs.scale import Scale
from kubeml.jobs.spec import JobSpec, State
from kubeml.pool.pending import Staffing

if TYPE_CHECKING:
    import torch

    from kubeml.analysis.audit import JobAudit


class Job:
    """One training job."""

    def __init__(self, job_id: str, backends: Backends) -> None:
        self.id = job_id
        self._backends = backends
        self._store = RoundStore(backends.redis, job_id, where=backends.where)
        self._status = StatusReader(job_id, backends)
        self._follower = Follower(job_id, backends)
        self._records, self._checkpoints = backends.records, backends.checkpoints

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    @property
    def spec(self) -> JobSpec:
        """What was asked for.

        Raises:
            JobNotFound: There is no such job.
        """
        return self._status.spec

    def status(self, *, pool: Callable[[], Staffing] | None = None) -> JobStatus:
        """The job as it stands now.

        Args:
            pool: Reads who is in the pool, if that is needed; for who asks of many jobs at once.
        """
        return self._status.read(pool)

    def why_pending(self) -> str:
        """Why no worker can serve the job now; "" if one does, or is about to."""
        return self._status.why_pending()

    def history(self) -> list[EpochRow]:
        """One row per finished epoch."""
        _ = self.spec
        return self._records.rows(self.id)

    def wait(self, timeout_s: float | None = None) -> JobEnd:
        """Wait until the job has ended.

        Args:
            timeout_s: Give up after this long; None for never.

        Raises:
            JobFailed: It failed; the error holds the reason.
            JobStopped: It was stopped.
            TimedOut: It has not ended yet; it goes on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in self._follower.batches(deadline=deadline):
            if deadline is not None and time.monotonic() > deadline:
                break
        end = self._records.end(self.id)
        if end is None:
            raise TimedOut(what=f"job {self.id}", after_s=timeout_s or 0.0)
        if end.state is State.FAILED:
            raise JobFailed(job_id=self.id, reason=end.reason)
        if end.state is State.STOPPED:
            raise JobStopped(job_id=self.id)
        return end

    def result(self) -> JobEnd:
        """How the job ended, whatever the way.

        Raises:
            Conflict: It has not ended.
        """
        end = self._records.end(self.id)
        if end is None:
            _ = self.spec
            raise Conflict(
                what=f"job {self.id} has not ended", hint=f"kubeml task watch --id {self.id}"
            )
        return end

    def events(self, *, since: str = "0") -> Iterator[Event]:
        """Progress events, as they come; ends when the job has ended.

        Args:
            since: Id of the last event seen before; "0" for all that are still kept.
        """
        for batch in self.event_batches(since=since):
            yield from batch

    def event_batches(self, *, since: str = "0") -> Iterator[list[Event]]:
        """Progress events as they come, and an empty batch at every second without any."""
        _ = self.spec
        yield from self._follower.batches(since=since)

    def recent_events(self, *, since: str = "0") -> list[Event]:
        """Progress events after ``since`` that are kept still, without waiting for more."""
        return self._follower.recent(since=since)

    def logs(self, *, follow: bool = False) -> Iterator[LogLine]:
        """The function's log lines; with ``follow`` until the job has ended."""
        _ = self.spec
        yield from self._follower.logs(follow=follow)

    def audit(self, *, verify: bool = False) -> "JobAudit":
        """How often each training row counted in each finished epoch, and who trained what.

        Args:
            verify: Read the checkpoints' weights too, and compare them with their hashes.
        """
        # Imported here: it takes numpy, which most commands do without.
        from kubeml.analysis.audit import JobAudit, audit_epoch, row_faults

        spec, rows = self.spec, self._records.rows(self.id)
        manifest = self._backends.datasets.at(spec.dataset, spec.dataset_version)
        checkpoints = {row.epoch: self._checkpoints.at(self.id, row.epoch) for row in rows}
        faults = row_faults(rows, {e: c.weights.sha256 for e, c in checkpoints.items() if c})
        if verify:
            faults += [
                str(err) for c in checkpoints.values() if c and (err := self._damage(c)) is not None
            ]
        return JobAudit(
            job_id=self.id,
            epochs=[
                audit_epoch(spec, manifest, row, self._records.ledger(self.id, row.epoch))
                for row in rows
            ],
            generations=self._records.generations(self.id),
            faults=faults,
        )

    def explain(self, *, epoch: int | None = None) -> JobTimes:
        """Where the time went in each finished epoch and the one under way, and what would help.

        Args:
            epoch: Explain this epoch alone, from 1.

        Raises:
            InvalidOption: The job has no such epoch (yet).
        """
        spec = self.spec
        return explain_job(spec, timed_epochs(self._records, self._store, only=epoch), only=epoch)

    def _damage(self, checkpoint: Checkpoint) -> KubemlError | None:
        try:
            self._checkpoints.tensors(checkpoint.weights)
        except (ObjectMissing, Corrupted) as err:
            return err
        return None

    def stop(self) -> None:
        """Ask the job to end; what was merged so far is kept.

        Raises:
            Conflict: It has ended already.
        """
        answer = "GONE"
        while answer == "GONE":  # rebuilt between the two calls: ask the new generation
            head = self._store.head()
            answer = self._store.stop(head.gen) if head else "FINAL"
        if answer == "FINAL":
            _ = self.spec
            ended = self._records.end(self.id)
            if ended is None:
                raise Conflict(
                    what=f"job {self.id} is just ending, or being rebuilt after a loss",
                    hint=f"try again in a moment; see kubeml task show --id {self.id}",
                )
            raise Conflict(what=f"job {self.id} has ended already: {ended.state}")
        with suppress(BackendUnreachable):  # a hint alone: the next tick does without
            self._backends.dispatcher.hint(self.id)

    def scale(
        self, parallelism: str | int | None = None, *, max_workers: int | None = None
    ) -> Scale:
        """Change what the job may have, while it runs. The epoch under way is not disturbed.

        Args:
            parallelism: Slots N, from the next epoch on: ``"2:16"`` lets the policy choose between
                a floor and a ceiling; ``4`` sets N to 4. As it is, if None.
            max_workers: Workers that may take part at a time, from now on; 0 for any number. As
                it is, if None.

        Returns:
            What it may have now.

        Raises:
            InvalidOption: Neither is given, or one is out of range. Nothing has changed.
            Conflict: The job has ended.
        """
        return rescale(self._backends, self.id, parallelism, max_workers)

    def resume(self, *, function: str | None = None, epochs: int | None = None) -> "Job":
        """Let a FAILED or STOPPED job go on from its last checkpoint.

        Args:
            function: Go on with this function as it stands now (after ``function update``, say),
                whose tensors must be the same; the job's own code unless given.
            epochs: Another number of epochs; more than it has done. A job that is DONE needs it.

        Returns:
            The job, under way again: same id, next generation.

        Raises:
            Conflict: It has not ended, or is DONE and ``epochs`` asks for no more.
            FunctionNotFound: There is no such function.
            InvalidFunction: The function does not work, or its tensors differ.
        """
        resume(self._backends, self.id, function=function, epochs=epochs)
        return Job(self.id, self._backends)

    def infer(self, data: list[Any], *, timeout_s: float = 60.0) -> Any:
        """Run the function's ``infer`` with this job's last weights; see ``Client.infer``."""
        return infer(self._backends, self.spec, data, timeout_s=timeout_s)

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """The last merged weights that were checkpointed: name to CPU tensor.

        Raises:
            Conflict: There are none yet.
        """
        end = self._records.end(self.id)
        if end is not None and end.checkpoint:
            checkpoint = self._checkpoints.read(end.checkpoint)
        else:
            _ = self.spec
            latest = self._checkpoints.latest(self.id)
            if latest is None:
                raise Conflict(what=f"job {self.id} has no weights yet")
            checkpoint = latest
        return load_state_dict(self._checkpoints, checkpoint)
