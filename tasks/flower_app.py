"""The Celery app that Flower is run on, and what we change of Flower.

``python -m celery -A tasks.flower_app flower``, with options that ``kubeml.ops.flower`` sets.
It sends and runs nothing, so it knows no tasks.
"""

import logging
from typing import Any

from celery.app.control import Control
from flower.urls import handlers
from flower.views.monitor import Metrics
from tornado.web import authenticated

from brokers.messages.topology import make_app
from brokers.settings import Settings


class Mute(Control):
    """Says nothing to workers: its user on Redis may not, since who may ask may also command.

    They send their events without being asked. What is asked of them alone (their queues, say) is
    not shown.
    """

    def broadcast(self, *_: Any, **__: Any) -> Any:
        """Send nothing, and hear no answers."""
        return None


app = make_app(Settings.load(), name="kubeml-flower")
app.control_cls = Mute  # type: ignore[assignment]
# It warns of every question that nobody answers.
logging.getLogger("flower.inspector").setLevel(logging.ERROR)


class GuardedMetrics(Metrics):
    """Flower's own metrics, for those who know the password: it guards all its pages but these."""

    @authenticated
    async def get(self) -> None:  # type: ignore[override]
        """Write them."""
        await super().get()  # type: ignore[no-untyped-call]


# The first that matches is taken.
handlers.insert(0, (r"/metrics", GuardedMetrics))
