"""The Python submit API: what the CLI does, for programs.

from kubeml import Client
with Client() as client:
    job = client.train("lenet", "mnist", epochs=5, batch_size=64, lr=0.01)
    print(job.wait().accuracy)
    weights = job.state_dict()
"""

from contextlib import suppress
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from brokers.messages.hint import Hint
from brokers.settings import Settings
from brokers.state.error_mapping import redis_errors
from kubeml.backends import Backends
from kubeml.catalog.functions import Functions
from kubeml.client.histories import Histories
from kubeml.client.infer import infer
from kubeml.client.job import Job
from kubeml.client.submission import called_like, spec_of
from kubeml.errors import BackendUnreachable, Conflict, NameTaken, ObjectExists
from kubeml.jobs.generations import Generations
from kubeml.jobs.options import TrainRequest
from kubeml.jobs.results import JobStatus
from kubeml.pool.demand import QueueDemand
from kubeml.pool.staffing import read_demand
from kubeml.pool.view import PoolView

if TYPE_CHECKING:
    from kubeml.catalog.datasets import Datasets
    from kubeml.pool.watch import PoolWatch


class Client:
    """A connection to kubeml. A context manager; safe to share between threads.

    Args:
        settings: Where the servers are; found by environment, file and profile unless given.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        #: The servers, for those who look inside: tests, benchmarks.
        self.backends = Backends(settings or Settings.load())
        self._histories = Histories(self.backends)

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
        self.backends.close()

    @cached_property
    def _pool_watch(self) -> "PoolWatch":
        # Imported here: it takes numpy, which no other command at the terminal needs.
        from kubeml.pool.watch import PoolWatch

        return PoolWatch(self.backends)

    @property
    def settings(self) -> Settings:
        """Where the servers are, and all else that can be set."""
        return self.backends.settings

    @property
    def functions(self) -> Functions:
        """The functions' catalogue."""
        return self.backends.functions

    @property
    def datasets(self) -> "Datasets":
        """The datasets' catalogue."""
        return self.backends.datasets

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

    @called_like(TrainRequest)
    def train(self, request: TrainRequest) -> Job:
        """Submit a training job and return at once.

        Called as ``client.train("lenet", "mnist", epochs=5, lr=0.1, k=8)``: the names of a function
        and of a dataset, the number of epochs, and any flag of ``kubeml train`` by its name.
        ``--max-workers`` is ``max_workers``, ``--batch`` is ``batch_size``, ``--K`` is ``k``, and
        ``--id`` is ``job_id``.

        Args:
            request: All of these; ``help(Client.train)`` lists them with their defaults.

        Raises:
            FunctionNotFound, DatasetNotFound: There is none of that name.
            InvalidOption: A value is out of range.
            NameTaken: A job of this id exists.
            BackendUnreachable: Redis or S3 does not answer; nothing was submitted.
        """
        backends = self.backends
        with redis_errors(backends.where):
            backends.redis.ping()
        info = self.functions.show(request.function)
        manifest = self.datasets.show(request.dataset)
        spec = spec_of(request, info, manifest)
        try:
            backends.records.create(spec)
        except ObjectExists as err:
            raise NameTaken(
                kind="job", name=spec.id, hint="leave --id out, or choose another"
            ) from err
        # From here on the job exists, and a parameter server begins it even if we cannot.
        with suppress(BackendUnreachable):
            Generations(
                backends.settings, backends.redis, backends.records, backends.checkpoints
            ).begin(spec)
            backends.dispatcher.schedule(Hint(job_id=spec.id), label=f"{spec.id}-e0-schedule")
            # Else a parameter server finds the job up to half a second later.
            backends.dispatcher.hint(spec.id)
        return Job(spec.id, backends)

    def job(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            JobNotFound: There is none.
        """
        job = Job(job_id, self.backends)
        _ = job.spec
        return job

    def jobs(self) -> list[JobStatus]:
        """The jobs of the live state: those under way, and those that ended within the hour."""
        return self._histories.live()

    def demand(self) -> list[QueueDemand]:
        """How many workers each queue has, and could use now; one row for each kind of worker.

        Raises:
            BackendUnreachable: The state server or the broker does not answer.
        """
        return read_demand(self.backends)

    def pool(self) -> PoolView:
        """Workers, jobs and queues at this moment: who does what, how fast, and how long yet.

        Raises:
            BackendUnreachable: Redis does not answer. Without S3 less is known of the jobs.
        """
        return self._pool_watch.look()

    def prune_jobs(self) -> list[str]:
        """Forget ended jobs in the live state; their histories and checkpoints stay."""
        return self._histories.prune_live()

    def histories(self) -> list[JobStatus]:
        """Every job there is a record of, newest first."""
        return self._histories.all()

    def delete_history(self, job_id: str) -> None:
        """Remove an ended job's history, checkpoints and records.

        Raises:
            JobNotFound: There is none.
            Conflict: It is running.
        """
        self._histories.delete(job_id)

    def prune_histories(self) -> list[str]:
        """Remove the histories of all ended jobs, and return their ids."""
        return self._histories.prune()

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
        return infer(self.backends, self.job(job_id).spec, data, timeout_s=timeout_s)
