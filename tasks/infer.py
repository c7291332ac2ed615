"""The inference task: the user's ``infer`` with a job's last weights."""

from typing import Any

from brokers.topology import INFER
from tasks.app import app
from tasks.process import this_worker
from tasks.refuse import hint_or_none


@app.task(name=INFER, acks_late=False)
def infer(wire: dict[str, Any], data: list[Any]) -> dict[str, Any]:
    """Return ``{"predictions": …}``, or what went wrong; see ``kubeml.inference``."""
    from kubeml.inference import infer_with  # not in the parent, see tasks.process

    hint = hint_or_none(wire)
    if hint is None:
        return {"error": "the request is malformed", "traceback": "", "hint": ""}
    return infer_with(this_worker(), hint, data)
