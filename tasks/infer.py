"""The inference task: the user's ``infer`` with a job's last weights."""

from typing import Any

from brokers.protocol import Hint
from brokers.topology import INFER
from kubeml.inference import infer_with
from tasks.app import app
from tasks.process import this_worker


@app.task(name=INFER, acks_late=False)
def infer(wire: dict[str, Any], data: list[Any]) -> dict[str, Any]:
    """Return ``{"predictions": …}``, or what went wrong; see ``kubeml.inference``."""
    return infer_with(this_worker(), Hint.from_wire(wire).job_id, data)
