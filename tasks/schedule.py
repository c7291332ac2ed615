"""The scheduling task: plan the next epoch and dispatch what is under way."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from brokers.topology import SCHEDULE
from tasks.app import app, settings
from tasks.graph import send_stage
from tasks.refuse import hint_or_none

if TYPE_CHECKING:
    from kubeml.scheduler import Scheduler


@app.task(
    name=SCHEDULE,
    acks_late=True,
    ignore_result=True,
    autoretry_for=(Exception,),
    max_retries=2,
    default_retry_delay=1,
)
def schedule(wire: dict[str, Any]) -> None:
    """Idempotent: a late or doubled request finds nothing left to plan."""
    if hint := hint_or_none(wire):
        this_scheduler().step(hint, send_stage)


@lru_cache(maxsize=1)
def this_scheduler() -> "Scheduler":
    """This process's connections and caches."""
    # Here: a training worker knows this task too, and needs nothing of it.
    from kubeml.scheduler import Scheduler

    return Scheduler(settings)
