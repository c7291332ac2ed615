"""An epoch as Celery canvases: one group of dispatches per stage.

The stages are joined by the parameter server, which reads the round store, and not by a chord: on
Redis a chord hangs for ever if one counter key or header message is lost. The graph of an epoch is

    group(kubeml.train x N) -> [parameter server: merges] -> group(kubeml.validate x N)
    -> [parameter server: checkpoint, history] -> kubeml.schedule (the next epoch)
"""

from collections.abc import Sequence

from celery import group
from celery.canvas import Signature

from brokers.dispatch import dispatch_id, dispatch_repr, stage_queue
from brokers.protocol import Hint
from brokers.topology import STAGE_TASKS
from tasks.app import app


def stage_group(stage: str, hints: Sequence[Hint], device: str, label: str) -> group:
    """The group of dispatches of one stage, with readable task ids for Flower."""
    return group(participant(stage, hint, device, label) for hint in hints)


def participant(stage: str, hint: Hint, device: str, label: str) -> Signature:
    """One dispatch: a worker is asked to take part in a stage of a job."""
    args = [hint.to_wire()] if stage == "validate" else [hint.to_wire(), stage]
    signature: Signature = app.signature(
        STAGE_TASKS[stage],
        args=args,
        queue=stage_queue(stage, device),
        task_id=dispatch_id(label, hint),
        argsrepr=dispatch_repr(label, hint),
        ignore_result=True,
        immutable=True,
    )
    return signature


def send_stage(stage: str, hints: Sequence[Hint], device: str, label: str) -> None:
    """Send a stage's group."""
    stage_group(stage, hints, device, label).apply_async()
