"""Fail points: named places where a process can be told to fail, for tests of its recovery.

    KUBEML_FAIL="ps.after_stage=kill@epoch=1,round=3;worker.mid_train=stop:20@slot=1"

A rule is ``role.point=action[:argument][@condition,…]``; rules are separated by ``;``. Conditions
are compared with the values known at the point: ``job``, ``epoch``, ``round``, ``slot``,
``attempt``, ``batch``, ``index``. A rule fires once in a process, or ``times=N`` times. Actions:

    kill       SIGKILL to this process
    stop:S     SIGSTOP to this process, SIGCONT after S seconds
    raise      a RuntimeError
    sleep:S    this thread sleeps S seconds
    dup        the call at the point is made twice
    corrupt    a byte of what is sent there is changed

While the variable is unset, nothing is read or compared.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from brokers.errors import InvalidSetting

logger = logging.getLogger(__name__)

POINTS = {
    "worker": (
        "taken",
        "fetched",
        "mid_train",
        "chunk",
        "pushed",
        "before_contrib",
        "after_contrib",
        "waiting",
    ),
    "ps": (
        "acquired",
        "read",
        "aggregating",
        "chunk",
        "pushed",
        "after_stage",
        "after_advance",
        "before_checkpoint",
        "after_objects",
        "after_manifest",
        "after_finish",
        "before_dispatch",
    ),
    "scheduler": ("before_plan", "after_plan"),
}

_TIMED = ("stop", "sleep")
_ACTIONS = ("kill", "raise", "dup", "corrupt", *_TIMED)


@dataclass
class Rule:
    """One rule: what to do at a point, under which conditions, and how many times more."""

    role: str
    point: str
    action: str
    seconds: float = 0.0
    conditions: dict[str, str] = field(default_factory=dict)
    times: int = 1

    def matches(self, where: dict[str, Any]) -> bool:
        """Return whether every condition holds at the place ``where``."""
        return all(str(where.get(key)) == value for key, value in self.conditions.items())


def parse(text: str) -> list[Rule]:
    """Read the rules of ``KUBEML_FAIL``.

    Raises:
        InvalidSetting: A rule names no known point or action, or its argument cannot be read.
    """
    return [_rule(part.strip()) for part in text.split(";") if part.strip()]


def _rule(text: str) -> Rule:
    name, _, rest = text.partition("=")
    what, _, conditions = rest.partition("@")
    action, _, argument = what.partition(":")
    role, _, point = name.partition(".")
    if point not in POINTS.get(role, ()):
        known = ", ".join(f"{r}.{p}" for r, points in POINTS.items() for p in points)
        raise InvalidSetting(setting="KUBEML_FAIL", fault=f"no point {name!r}; there are {known}")
    if action not in _ACTIONS:
        fault = f"no action {action!r}; there are {', '.join(_ACTIONS)}"
        raise InvalidSetting(setting="KUBEML_FAIL", fault=fault)
    try:
        seconds = float(argument) if action in _TIMED else 0.0
        pairs = dict(pair.split("=", 1) for pair in conditions.split(",") if pair)
        times = int(pairs.pop("times", "1"))
    except ValueError as err:
        raise InvalidSetting(setting="KUBEML_FAIL", fault=f"cannot read {text!r}") from err
    return Rule(
        role=role, point=point, action=action, seconds=seconds, conditions=pairs, times=times
    )


_rules: dict[str, list[Rule]] = {}
_guard = threading.Lock()
_place = threading.local()


def install(text: str, role: str) -> None:
    """Arm the fail points of this process, which are those of its role.

    Raises:
        InvalidSetting: The rules cannot be read.
    """
    _rules.clear()
    for rule in parse(text):
        if rule.role == role:
            _rules.setdefault(rule.point, []).append(rule)


def at(**where: Any) -> None:
    """Say where this thread is, for the conditions of points that cannot know that themselves."""
    if _rules:
        _place.where = where


def reach(point: str, **where: Any) -> str:
    """Fail here, if a rule says so.

    Returns:
        ``dup`` or ``corrupt`` for the caller to do, "" otherwise.

    Raises:
        RuntimeError: By the action ``raise``.
    """
    if point not in _rules:
        return ""
    known = {**getattr(_place, "where", {}), **where}
    with _guard:
        rule = next((r for r in _rules[point] if r.times > 0 and r.matches(known)), None)
        if rule is None:
            return ""
        rule.times -= 1
    logger.warning("fail point %s.%s: %s at %s", rule.role, point, rule.action, known)
    return _act(rule)


def corrupted(data: bytes) -> bytes:
    """Return ``data`` with one byte changed."""
    return bytes([data[0] ^ 0xFF]) + data[1:]


def _act(rule: Rule) -> str:
    if rule.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rule.action == "stop":
        _stop(rule.seconds)
    elif rule.action == "sleep":
        time.sleep(rule.seconds)
    elif rule.action == "raise":
        raise RuntimeError(f"fail point {rule.role}.{rule.point}")
    else:
        return rule.action
    return ""


def _stop(seconds: float) -> None:
    # A process that is stopped cannot wake itself: another one does.
    code = f"import os, signal, time; time.sleep({seconds}); os.kill({os.getpid()}, signal.SIGCONT)"
    subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)  # noqa: S603
    os.kill(os.getpid(), signal.SIGSTOP)
