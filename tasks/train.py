"""The training task: a worker lends itself to a job."""

from typing import Any

from brokers.topology import TRAIN
from tasks.app import app, is_draining
from tasks.process import this_worker
from tasks.refuse import hint_or_none


@app.task(name=TRAIN, acks_late=False, ignore_result=True)
def train(wire: dict[str, Any], stage: str = "train") -> str:
    """Lend this process to a job until it wants no more. Lost or doubled: nothing breaks."""
    from kubeml.participant import participate  # not in the parent, see tasks.process

    hint = hint_or_none(wire)
    if hint is None:
        return "refused"
    return participate(this_worker(), hint, stage, is_draining=is_draining)
