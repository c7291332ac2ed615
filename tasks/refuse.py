"""What becomes of a task whose message is not one of ours."""

from typing import Any

from brokers.protocol import Hint
from brokers.refusals import note_refused
from kubeml.errors import MalformedMessage
from tasks.process import this_worker


def hint_or_none(wire: Any) -> Hint | None:
    """The task's hint; None, logged and counted, if it is malformed."""
    try:
        return Hint.from_wire(wire)
    except MalformedMessage as err:
        note_refused(this_worker().client, "task", err)
        return None
