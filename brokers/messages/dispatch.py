"""Sends messages: Celery tasks by name, and hints to the parameter servers. Any may be lost."""

from typing import Any

from celery.exceptions import TimeoutError as CeleryTimeout

from brokers.messages.hint import Hint
from brokers.messages.queues import (
    CONTROL_QUEUE,
    PS_QUEUE,
    first_queue,
    infer_queue,
    train_queue,
    worker_queues,
)
from brokers.messages.topology import INFER, SCHEDULE, TASK_OF, make_app
from brokers.settings import Settings
from brokers.state.error_mapping import redis_errors
from brokers.urls import mask_url
from brokers.wire import new_id


def stage_queue(stage: str, device: str) -> str:
    """Return the queue for the dispatches of a stage."""
    return first_queue(device) if stage == "init" else train_queue(device)


def dispatch_id(label: str, hint: Hint) -> str:
    """Return a readable Celery task id. Each sending has a new one: a revoked id swallows repeats.

    For the same reason no message expires, and because that would compare clocks. A stale message
    is known by its ticket.
    """
    return f"{label}-{hint.ticket[:8]}-{new_id()[:4]}"


def dispatch_repr(label: str, hint: Hint) -> str:
    """Return a dispatch's arguments for Flower: ``(job=mnist-1a2b, epoch=3, stage=train)``."""
    epoch, _, stage = label.removeprefix(f"{hint.job_id}-e").partition("-")
    return f"(job={hint.job_id}, epoch={epoch}, stage={stage})"


class Dispatcher:
    """Publishes messages. Safe to share between threads; make a new one after a fork."""

    def __init__(self, settings: Settings) -> None:
        self.app = make_app(settings)
        self._where = mask_url(settings.broker_url)

    def stage(self, stage: str, hint: Hint, *, device: str, label: str) -> None:
        """Send one participant's dispatch.

        Args:
            stage: ``init``, ``train`` or ``validate``.
            hint: The job and ticket.
            device: The kind of worker that is wanted.
            label: Readable front part of the Celery task id, e.g. ``mnist-1a2b-e3-train``.
        """
        self._send(
            TASK_OF[stage],
            hint,
            queue=stage_queue(stage, device),
            task_id=dispatch_id(label, hint),
            argsrepr=dispatch_repr(label, hint),
            ignore_result=True,
            extra=[] if stage == "validate" else [stage],
        )

    def schedule(self, hint: Hint, *, label: str) -> None:
        """Ask the scheduler to plan the job's next epoch."""
        self._send(
            SCHEDULE,
            hint,
            queue=CONTROL_QUEUE,
            task_id=label,
            ignore_result=True,
            argsrepr=dispatch_repr(label, hint),
        )

    def infer(self, hint: Hint, data: list[Any], *, device: str, timeout_s: float) -> Any:
        """Run an inference on a worker and return what the user's ``infer`` returned.

        Raises:
            TimeoutError: No worker answered in time.
        """
        result = self._send(
            INFER,
            hint,
            queue=infer_queue(device),
            task_id=f"{hint.job_id}-infer-{hint.ticket[:8]}",
            # Not the data: anybody can see a task's arguments.
            argsrepr=f"(job={hint.job_id}, {len(data)} inputs)",
            extra=[data],
        )
        try:
            with redis_errors(self._where):
                return result.get(timeout=timeout_s)
        except CeleryTimeout as err:
            raise TimeoutError from err
        finally:
            with redis_errors(self._where):
                result.forget()

    def hint(self, job_id: str) -> None:
        """Tell the parameter servers to look at a job now rather than at the next tick."""
        with redis_errors(self._where), self.app.producer_or_acquire() as producer:
            # The anonymous exchange needs no binding, which a flush of Redis would lose.
            producer.publish(
                Hint(job_id=job_id).to_wire(), serializer="json", exchange="", routing_key=PS_QUEUE
            )

    def close(self) -> None:
        """Close the connections."""
        self.app.close()

    def queue_lengths(self, client: Any, device: str) -> tuple[int, int]:
        """Return how many messages wait for a kind of worker, and how many of them for new jobs.

        Args:
            client: A client of the broker's server.
            device: The kind of worker.
        """
        with redis_errors(self._where):
            pipe = client.pipeline(transaction=False)
            for name in worker_queues(device):
                pipe.llen(name)
            requests, first, others = map(int, pipe.execute())
            return requests + first + others, first

    def _send(
        self, task: str, hint: Hint, *, queue: str, extra: list[Any] | None = None, **options: Any
    ) -> Any:
        with redis_errors(self._where):
            return self.app.send_task(
                task, args=[hint.to_wire(), *(extra or [])], queue=queue, retry=False, **options
            )
