"""The Celery app that Flower is run on, and what we change of Flower.

``python -m celery -A tasks.flower_app flower``, with options that ``kubeml.flower`` sets.
It sends and runs nothing, so it knows no tasks.
"""

from flower.urls import handlers
from flower.views.monitor import Metrics
from tornado.web import authenticated

from brokers.settings import Settings
from brokers.topology import make_app

app = make_app(Settings.load(), name="kubeml-flower")
# Each of its threads holds one connection and asks for another: a limit locks them up for ever.
app.conf.broker_pool_limit = None


class GuardedMetrics(Metrics):
    """Flower's own metrics, for those who know the password: it guards all its pages but these."""

    @authenticated
    async def get(self) -> None:  # type: ignore[override]
        """Write them."""
        await super().get()  # type: ignore[no-untyped-call]


# The first that matches is taken.
handlers.insert(0, (r"/metrics", GuardedMetrics))
