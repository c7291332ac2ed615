"""Log lines on stderr, as text or as JSON: each says which job, epoch, round and slot it is about.

A thread that works for a job says so once, by ``work_on``. Then the lines of every module that it
calls, and of the libraries, have these fields. A training worker serves one job at a time, so its
word holds for all of its threads; in a parameter server each job has a thread of its own.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from brokers.settings import Settings, secrets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

Place = Mapping[str, str | int]

#: The fields, in the order that they have in text and JSON alike.
PLACE_FIELDS = ("job", "epoch", "round", "slot")

_of_thread: ContextVar[Place | None] = ContextVar("kubeml_place", default=None)
_of_process: list[Place] = [{}]

#: The user and password in any URL: the secrets of other processes are not known here.
_IN_URL = re.compile(r"(?<=://)[^/@\s'\"]*:[^/@\s'\"]+@")

#: Celery's lines about a task carry its arguments.
_JOB_IN_TASK = re.compile(r"'job_id': '([A-Za-z0-9-]{1,63})'")


def work_on(
    job_id: str = "",
    *,
    epoch: int | None = None,
    round_index: int | None = None,
    slot: int | None = None,
    everywhere: bool = False,
) -> None:
    """Say what this thread's lines are about from now on; without a job, they are about none.

    Args:
        job_id: The job.
        epoch: Its epoch, from 1.
        round_index: Its round, from 0 as in the ledger.
        slot: Its slot.
        everywhere: Whether it holds for all threads of this process that have not said otherwise.
    """
    values = (job_id or None, epoch, round_index, slot)
    place = {k: v for k, v in zip(PLACE_FIELDS, values, strict=True) if v is not None}
    if everywhere:
        _of_process[0] = place
    else:
        _of_thread.set(place)


def set_up(settings: Settings) -> None:
    """Send this process's log lines to stderr, in the format that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    secrets = secrets_of(settings)
    is_json = settings.log_format == "json"
    handler.setFormatter(JsonLines(secrets) if is_json else TextLines(secrets))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # One of Python's own warnings would otherwise be a line that is not JSON.
    logging.captureWarnings(capture=is_json)


class TextLines(logging.Formatter):
    """Lines for people: ``time LEVEL logger [job=J epoch=1 round=0 slot=2] message``."""

    def __init__(self, secrets: "Sequence[str]" = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(place)s%(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback's lines below it."""
        shown = " ".join(f"{name}={value}" for name, value in _place(record).items())
        record.place = f"[{shown}] " if shown else ""
        return _masked(super().format(record), self._secrets)


class JsonLines(logging.Formatter):
    """A JSON object a line: time, level, logger, message; job, epoch, round, slot where known."""

    def __init__(self, secrets: "Sequence[str]" = ()) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, with the traceback in it if there is one."""
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            **_place(record),
            "message": _masked(record.getMessage(), self._secrets),
        }
        if record.exc_info:
            line["traceback"] = _masked(self.formatException(record.exc_info), self._secrets)
        return json.dumps(line, ensure_ascii=False, default=str)


def _place(record: logging.LogRecord) -> Place:
    place = _of_thread.get()
    if place is None:
        place = _of_process[0]
    data = getattr(record, "data", None)
    if not place and isinstance(data, Mapping):
        found = _JOB_IN_TASK.search(str(data.get("args", "")))
        return {"job": found[1]} if found else {}
    return place


def _masked(text: str, secrets: "Sequence[str]") -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return _IN_URL.sub("***@", text)
