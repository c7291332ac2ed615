"""What a follower of a job sees: its events folded into a picture, for ``cli/follow.py``. Pure."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Rounds over which the speed is measured.
_WINDOW = 20


@dataclass
class JobView:
    """A job as its events tell it.

    Attributes:
        epochs: Epochs asked for.
        epoch, round, rounds: Where it is; ``epoch`` counts from 1.
        parallelism, workers: Slots of the epoch; workers in the last round.
        samples: Rows of the epoch; ``done`` of them are merged.
        loss, accuracy: The last known values.
        state: Set by the ``end`` event.
        pending: Why no worker can serve the job now; "" if one does.
    """

    epochs: int
    epoch: int = 0
    round: int = 0
    rounds: int = 0
    parallelism: int = 0
    workers: int = 0
    samples: int = 0
    done: int = 0
    loss: float | None = None
    accuracy: float | None = None
    state: str = ""
    reason: str = ""
    pending: str = ""
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_WINDOW + 1))

    def apply(self, kind: str, at: float, fields: Mapping[str, Any]) -> str:
        """Take in one event, and return a line about it ("" if it is not worth a line).

        Args:
            kind: The event's kind.
            at: Its time, Unix seconds.
            fields: Its fields.
        """
        if kind == "epoch":
            return self._begin(at, fields)
        if kind == "round":
            return self._merged(at, fields)
        if kind == "validated":
            self.accuracy = fields["accuracy"]
            return ""
        if kind == "checkpoint":
            return self._recorded(fields["row"])
        if kind == "retry":
            why = str(fields["why"]).splitlines()[0]
            return f"epoch {fields['epoch']}: slot {fields['slot']} is trained again: {why}"
        if kind == "rebuilt":
            return f"rebuilt from epoch {fields['epoch']}: {fields['why']}"
        if kind == "end":
            self.state, self.reason = fields["state"], fields["reason"]
        return ""

    def wait_for(self, pending: str) -> str:
        """Take in why no worker can serve the job now, and return a line if the reason is new."""
        is_news = pending not in {"", self.pending}
        self.pending = pending
        return f"PENDING: {pending}" if is_news else ""

    @property
    def samples_per_s(self) -> float:
        """Return the rows merged per second over the last rounds; 0 while unknown."""
        if len(self._recent) < 2:
            return 0.0
        seconds = self._recent[-1][0] - self._recent[0][0]
        rows = sum(count for _, count in list(self._recent)[1:])
        return rows / seconds if seconds > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """Return the seconds until the last epoch is trained, at this speed; None while unknown."""
        speed = self.samples_per_s
        if not speed or not self.samples:
            return None
        left = self.samples - self.done + (self.epochs - self.epoch) * self.samples
        return left / speed

    def _begin(self, at: float, fields: Mapping[str, Any]) -> str:
        self.epoch, self.rounds = fields["epoch"], fields["rounds"]
        self.epochs = fields.get("epochs", self.epochs)
        self.parallelism, self.samples = fields["parallelism"], fields["samples"]
        self.round = self.done = 0
        self._recent.clear()
        self._recent.append((at, 0))
        slots = "slot" if self.parallelism == 1 else "slots"
        return (
            f"epoch {self.epoch}/{self.epochs}: {self.parallelism} {slots} ({fields['decision']})"
        )

    def _merged(self, at: float, fields: Mapping[str, Any]) -> str:
        if fields["epoch"] != self.epoch:
            return ""
        self.round, self.rounds = fields["round"], fields["rounds"]
        self.done += fields["samples"]
        self.loss, self.workers = fields["loss"], fields["workers"]
        self._recent.append((at, fields["samples"]))
        return ""

    def _recorded(self, row: Mapping[str, Any]) -> str:
        parts = [f"epoch {row['epoch']}/{self.epochs} done in {row['duration_s']:.1f} s"]
        if row["duration_s"]:
            parts.append(f"{row['samples'] / row['duration_s']:,.0f} samples/s")
        if row["train_loss"] is not None:
            parts.append(f"loss {row['train_loss']:.4f}")
        if row["accuracy"] is not None:
            parts.append(f"accuracy {row['accuracy']:.2f} %")
        if row["retries"]:
            parts.append(f"{many(row['retries'], 'slot')} trained again")
        return ", ".join(parts)


def many(count: int | str, noun: str) -> str:
    """Return a count of something, for people: 1 worker, 0 to 1 workers, 2 workers."""
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"


def duration(seconds: float | None) -> str:
    """Return seconds as people write them: 45s, 3m20s, 2h05m."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
