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
    """A remote control that sends nothing to workers.

    Flower's user on Redis may not send to them, since a user that may ask may also command. Workers
    send their events unasked. Facts that have to be asked for (their queues, say) are not shown.
    """

    def broadcast(self, *_: Any, **__: Any) -> Any:
        """Send nothing, and hear no answers."""
        return None


app = make_app(Settings.load(), name="kubeml-flower")
app.control_cls = Mute  # type: ignore[assignment]
# Flower's inspector would warn of every question that is not answered.
logging.getLogger("flower.inspector").setLevel(logging.ERROR)


class GuardedMetrics(Metrics):
    """Flower's own metrics, behind its password: Flower itself guards all pages but these."""

    @authenticated
    async def get(self) -> None:  # type: ignore[override]
        """Write the metrics."""
        await super().get()  # type: ignore[no-untyped-call]


# Tornado takes the first handler that matches.
handlers.insert(0, (r"/metrics", GuardedMetrics))
