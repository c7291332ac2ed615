"""The Python submit API: what the CLI does, for programs.

from kubeml import Client
with Client() as client:
    job = client.train("lenet", "mnist", epochs=5, batch_size=64, lr=0.01)
    print(job.wait().accuracy)
    weights = job.state_dict()
"""

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from brokers.messages.hint import Hint
from brokers.objects.store import ObjectStore
from brokers.pool.inference_requests import awaited
from brokers.rounds.index import ended_jobs, live_jobs
from brokers.rounds.store import RoundStore
from brokers.settings import Settings
from brokers.state.connections import state_client
from brokers.state.error_mapping import redis_errors
from brokers.urls import mask_url
from brokers.wire import is_job_id, new_id
from kubeml.client.job import Job
from kubeml.errors import (
    BackendRefused,
    BackendUnreachable,
    Conflict,
    InvalidOption,
    JobNotFound,
    NameTaken,
    ObjectExists,
    TimedOut,
    UserCodeError,
)
from kubeml.jobs.checkpoint import Checkpoints
from kubeml.jobs.generations import Generations
from kubeml.jobs.records import PARALLEL_READS, JobRecords
from kubeml.jobs.results import JobStatus
from kubeml.jobs.scale import asked_parallelism, parse_duration
from kubeml.jobs.spec import JobSpec
from kubeml.pool.demand import QueueDemand
from kubeml.pool.pending import Staffing
from kubeml.pool.watch import read_demand, read_staffing

if TYPE_CHECKING:
    from redis import Redis

    from brokers.messages.dispatch import Dispatcher
    from kubeml.catalog.datasets import Datasets
    from kubeml.catalog.functions import Functions
    from kubeml.pool.view import PoolView
    from kubeml.pool.watch import PoolWatch

T = TypeVar("T")

#: For fewer ended jobs it is quicker to look at each than to list all summaries.
_INDEX_FROM = 100


class Client:
    """A connection to kubeml. A context manager; safe to share between threads.

    Args:
        settings: Where the servers are; found by environment, file and profile unless given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.load()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if "redis" in self.__dict__:
            self.redis.close()
        if "_pool_watch" in self.__dict__:
            self._pool_watch.close()
        if "dispatcher" in self.__dict__:
            self.dispatcher.close()

    @cached_property
    def functions(self) -> "Functions":
        """The functions' catalogue."""
        from kubeml.catalog.functions import Functions

        return Functions(self.objects)

    @cached_property
    def datasets(self) -> "Datasets":
        """The datasets' catalogue."""
        from kubeml.catalog.datasets import Datasets

        return Datasets(self.objects)

    def delete_dataset(self, name: str) -> None:
        """Delete a dataset that no job is training on.

        Raises:
            DatasetNotFound: There is none of that name.
            Conflict: A job is training on it.
        """
        self.datasets.show(name)
        using = [
            status.id
            for status in self.jobs()
            if status.spec.dataset == name and not status.state.is_final
        ]
        if using:
            raise Conflict(
                what=f"dataset {name!r} is used by job {using[0]}",
                hint=f"wait for it, or stop it: kubeml task stop --id {using[0]}",
            )
        self.datasets.delete(name)

    def train(
        self,
        function: str,
        dataset: str,
        *,
        epochs: int,
        batch_size: int = 64,
        lr: float = 0.01,
        job_id: str | None = None,
        seed: int | None = None,
        parallelism: int | str = 2,
        max_parallelism: int | None = None,
        deadline: str | float | None = None,
        **options: Any,
    ) -> "Job":
        """Submit a training job and return at once.

        Args:
            function: Name of a function.
            dataset: Name of a dataset.
            epochs: Passes over the training set.
            batch_size: Rows per step.
            lr: Learning rate, ``self.lr`` in the function.
            job_id: An id of your own, which makes submitting twice an error rather than two jobs.
            seed: Fixes initial weights, shuffling and augmentation; 0 unless given.
            parallelism: Slots N: ``4`` to begin with 4, ``"2:8"`` to begin with 2 and stay between
                2 and 8.
            max_parallelism: Ceiling of N; 16, or the parallelism if that is larger.
            deadline: In what time the job should end, counted from now: ``"30m"``, or seconds.
            options: Further fields of ``JobSpec``: ``static``, ``policy``, ``max_workers``,
                ``hedge``, ``priority``, ``k``, ``validate_every``, ``goal_accuracy``, ``shuffle``,
                ``outer``, ``optimizer_state``, ``outer_lr``, ``outer_momentum``, ``wire``, …

        Raises:
            FunctionNotFound, DatasetNotFound: There is none of that name.
            InvalidOption: A value is out of range.
            NameTaken: A job of this id exists.
            BackendUnreachable: Redis or S3 does not answer; nothing was submitted.
        """
        with redis_errors(self.where):
            self.redis.ping()
        info = self.functions.show(function)
        manifest = self.datasets.show(dataset)
        static = bool(options.get("static"))
        options |= asked_parallelism(parallelism, max_parallelism, static=static)
        if deadline is not None:
            options["deadline_s"] = parse_duration("--deadline", deadline)
        try:
            spec = JobSpec(
                id=new_job_id() if job_id is None else _checked_id(job_id),
                function=function,
                function_sha256=info.sha256,
                entry=info.entry,
                dataset=dataset,
                dataset_version=manifest.version,
                epochs=epochs,
                batch_size=batch_size,
                lr=lr,
                seed=0 if seed is None else seed,
                created_at=time.time(),
                **options,
            )
        except TypeError as err:
            raise InvalidOption(option="options", got=str(err), expected="JobSpec fields") from err
        spec.check()
        spec.check_against_data(manifest.train.num_rows)
        try:
            self.records.create(spec)
        except ObjectExists as err:
            raise NameTaken(
                kind="job", name=spec.id, hint="leave --id out, or choose another"
            ) from err
        # From here on the job exists, and a parameter server begins it even if we cannot.
        with suppress(BackendUnreachable):
            Generations(self.settings, self.redis, self.objects).begin(spec)
            self.dispatcher.schedule(Hint(job_id=spec.id), label=f"{spec.id}-e0-schedule")
            # Else a parameter server finds the job up to half a second later.
            self.dispatcher.hint(spec.id)
        return Job(spec.id, self)

    def job(self, job_id: str) -> "Job":
        """A job by its id.

        Raises:
            JobNotFound: There is none.
        """
        job = Job(job_id, self)
        _ = job.spec
        return job

    def jobs(self) -> list[JobStatus]:
        """The jobs of the live state: those under way, and those that ended within the hour."""
        alive = live_jobs(self.redis, where=self.where)
        ended = ended_jobs(self.redis, where=self.where)
        ids = list(dict.fromkeys([*alive, *ended]))
        finished = self.records.finished() if len(ended) > _INDEX_FROM else {}
        finished |= dict.fromkeys(alive)
        return sorted(self._statuses(ids, finished), key=lambda s: s.spec.created_at)

    def demand(self) -> list[QueueDemand]:
        """How many workers each queue has, and could use now; one row for each kind of worker.

        Raises:
            BackendUnreachable: The state server or the broker does not answer.
        """
        return read_demand(self)

    def pool(self) -> "PoolView":
        """Workers, jobs and queues at this moment: who does what, how fast, and how long yet.

        Raises:
            BackendUnreachable: Redis does not answer. Without S3 less is known of the jobs.
        """
        return self._pool_watch.look()

    def prune_jobs(self) -> list[str]:
        """Forget ended jobs in the live state; their histories and checkpoints stay."""
        ids = ended_jobs(self.redis, where=self.where)
        for job_id in ids:
            RoundStore(self.redis, job_id, where=self.where).forget()
        return ids

    def histories(self) -> list[JobStatus]:
        """Every job there is a record of, newest first."""
        ids, finished = self.records.all_ids(), self.records.finished()
        found = self._statuses(ids, finished)
        unlisted = [s for s in found if s.id not in finished]
        with suppress(BackendRefused):  # whoever may only read reads all records again next time
            self._each([s.id for s in unlisted if s.end], self.records.summarise)
            # Of a bucket that was copied while they trained.
            self._each([s.id for s in unlisted if not s.end], self.records.put_back)
        return sorted(found, key=lambda s: s.spec.created_at, reverse=True)

    def delete_history(self, job_id: str) -> None:
        """Remove an ended job's history, checkpoints and records.

        Raises:
            JobNotFound: There is none.
            Conflict: It is running.
        """
        status = self.job(job_id).status()
        if not status.state.is_final:
            raise Conflict(
                what=f"job {job_id} is running", hint=f"stop it: kubeml task stop --id {job_id}"
            )
        self._delete(job_id)

    def prune_histories(self) -> list[str]:
        """Remove the histories of all ended jobs, and return their ids."""
        ended = [s.id for s in self.histories() if s.state.is_final]
        return [job_id for job_id in self._each(ended, self._prune) if job_id]

    def infer(self, job_id: str, data: list[Any], *, timeout_s: float = 60.0) -> Any:
        """Run the function's ``infer`` on a worker, with the job's last weights.

        Args:
            job_id: A job that has trained at least an epoch.
            data: What ``infer`` gets: JSON-able values.
            timeout_s: How long to wait for a worker.

        Raises:
            JobNotFound: There is no such job.
            Conflict: It has no weights yet.
            UserCodeError: The user's ``infer`` raised.
            TimedOut: No worker answered.
        """
        job = self.job(job_id)
        if self.checkpoints.latest(job_id) is None:
            raise Conflict(
                what=f"job {job_id} has no weights yet", hint=f"kubeml task show --id {job_id}"
            )
        hint, device = Hint(job_id=job_id, ticket=new_id()), job.spec.device
        try:
            with awaited(
                self.redis, hint.ticket, device=device, within_s=timeout_s, where=self.where
            ):
                answer = self.dispatcher.infer(hint, data, device=device, timeout_s=timeout_s)
        except TimeoutError as err:
            raise TimedOut(
                what=f"inference with job {job_id}", after_s=timeout_s,
                hint="is a worker running and free? see `kubeml status`",
            ) from err  # fmt: skip
        if "error" in answer:
            raise UserCodeError(
                where="infer", fault=answer["error"], user_traceback=answer["traceback"],
                hint=answer["hint"],
            )  # fmt: skip
        return answer["predictions"]

    @cached_property
    def objects(self) -> ObjectStore:
        """The bucket."""
        return ObjectStore(self.settings)

    @cached_property
    def redis(self) -> "Redis":
        """The state server's client."""
        return state_client(self.settings)

    @cached_property
    def dispatcher(self) -> "Dispatcher":
        """Where messages are sent."""
        from brokers.messages.dispatch import Dispatcher

        return Dispatcher(self.settings)

    @cached_property
    def records(self) -> JobRecords:
        """The jobs' records."""
        return JobRecords(self.objects)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The jobs' checkpoints."""
        return Checkpoints(self.objects)

    @cached_property
    def _pool_watch(self) -> "PoolWatch":
        from kubeml.pool.watch import PoolWatch

        return PoolWatch(self)

    @property
    def where(self) -> str:
        """Where the state server is, without its password."""
        return mask_url(self.settings.state_url)

    def _each(self, ids: list[str], look: Callable[[str], T]) -> list[T]:
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            return list(pool.map(look, ids))

    def _statuses(
        self, ids: list[str], finished: Mapping[str, JobStatus | None]
    ) -> list[JobStatus]:
        """What ``finished`` says of these jobs; all others are looked at one by one."""
        pool = cache(partial(read_staffing, self))  # read once, and only if a job waits
        known = [status for job_id in ids if (status := finished.get(job_id)) is not None]
        unknown = [job_id for job_id in ids if finished.get(job_id) is None]
        found = self._each(unknown, partial(self._look, pool=pool))
        return known + [status for status in found if status is not None]

    def _look(self, job_id: str, pool: Callable[[], Staffing]) -> JobStatus | None:
        try:
            return Job(job_id, self).status(pool=pool)
        except JobNotFound:
            # Deleted meanwhile, or a submission that died half-way.
            return None

    def _prune(self, job_id: str) -> str:
        if self.records.end(job_id) is None:
            # Deleted or resumed by somebody else meanwhile.
            return ""
        self._delete(job_id)
        return job_id

    def _delete(self, job_id: str) -> None:
        RoundStore(self.redis, job_id, where=self.where).forget()
        self.records.delete(job_id)


def new_job_id() -> str:
    """An id that no other job has, for all anyone will ever see: 8 hexadecimal digits."""
    return uuid.uuid4().hex[:8]


def _checked_id(job_id: str) -> str:
    if not is_job_id(job_id):
        raise InvalidOption(
            option="--id", got=repr(job_id), expected="1 to 63 letters, digits or '-'"
        )
    return job_id
