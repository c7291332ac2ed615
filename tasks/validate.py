"""The validation task: a worker evaluates parts of the test set."""

from typing import Any

from brokers.topology import VALIDATE
from tasks.app import app, is_draining
from tasks.process import this_worker
from tasks.refuse import hint_or_none


@app.task(name=VALIDATE, acks_late=False, ignore_result=True)
def validate(wire: dict[str, Any]) -> str:
    """Lend this process to a job's validation. Lost or doubled: nothing breaks."""
    from kubeml.participant import participate  # not in the parent, see tasks.process

    hint = hint_or_none(wire)
    if hint is None:
        return "refused"
    return participate(this_worker(), hint, "validate", is_draining=is_draining)
