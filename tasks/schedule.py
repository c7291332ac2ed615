"""The scheduling task, and an epoch as Celery canvases: one group of dispatches per stage.

The parameter server joins the stages, by the round store. A chord would not do: on Redis it hangs
for ever if one counter key or header message is lost. The graph of an epoch is

    group(kubeml.train x N) -> [parameter server: merges] -> group(kubeml.validate x N)
    -> [parameter server: checkpoint, history] -> kubeml.schedule (the next epoch)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from celery import group
from celery.canvas import Signature

from brokers.messages.dispatch import dispatch_id, dispatch_repr, stage_queue
from brokers.messages.hint import Hint
from brokers.messages.topology import SCHEDULE, TASK_OF
from tasks.app import app
from tasks.worker import hint_or_none, these_backends

if TYPE_CHECKING:
    from kubeml.scheduling.scheduler import Scheduler


@app.task(
    name=SCHEDULE,
    acks_late=True,
    ignore_result=True,
    autoretry_for=(Exception,),
    max_retries=2,
    default_retry_delay=1,
)
def schedule(wire: dict[str, Any]) -> None:
    """Plan the next epoch, if one is due, and dispatch what is under way.

    It is idempotent: a late or doubled request finds nothing left to plan.
    """
    if hint := hint_or_none(wire):
        this_scheduler().step(hint, send_stage)


@lru_cache(maxsize=1)
def this_scheduler() -> "Scheduler":
    """Return this process's scheduler, with its memory of jobs."""
    # Imported here: a training worker knows this task too, and never runs it.
    from kubeml.scheduling.scheduler import Scheduler

    return Scheduler(these_backends())


def stage_group(stage: str, hints: Sequence[Hint], device: str, label: str) -> group:
    """Return the group of dispatches of one stage, with readable task ids for Flower."""
    return group(participant(stage, hint, device, label) for hint in hints)


def participant(stage: str, hint: Hint, device: str, label: str) -> Signature:
    """Return one dispatch, which asks a worker to take part in a stage of a job."""
    args = [hint.to_wire()] if stage == "validate" else [hint.to_wire(), stage]
    signature: Signature = app.signature(
        TASK_OF[stage],
        args=args,
        queue=stage_queue(stage, device),
        task_id=dispatch_id(label, hint),
        argsrepr=dispatch_repr(label, hint),
        ignore_result=True,
        immutable=True,
    )
    return signature


def send_stage(stage: str, hints: Sequence[Hint], device: str, label: str) -> None:
    """Send the group of a stage."""
    stage_group(stage, hints, device, label).apply_async()
