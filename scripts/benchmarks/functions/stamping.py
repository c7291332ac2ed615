"""Noting when the first batch of a round begins, and when the last one has ended.

Lines of JSON in KUBEML_HOME/stamps/PID: what, epoch, slot, and the time by a clock that all
processes of a machine share. The end is noted when the next round begins, outside of what is
measured.
"""

import json
import os
import time
from pathlib import Path

STAMPS = Path(os.environ["KUBEML_HOME"]) / "stamps"


class Stamping:
    """Put it before a ``KubeModel`` that trains, and it notes that one's rounds."""

    last = None

    def train(self, batch, batch_index):
        """The step, with the time taken before and after it."""
        if batch_index == 0:
            now = time.monotonic()
            self.flush()
            self.note("begin", (self.epoch, self.args._func_id, now))
        loss = super().train(batch, batch_index)
        self.last = (self.epoch, self.args._func_id, time.monotonic())
        return loss

    def validate(self, batch, batch_index):
        """The validation; the last round has ended."""
        self.flush()
        return super().validate(batch, batch_index)

    def flush(self):
        """Note the end of the round before."""
        if self.last is not None:
            self.note("end", self.last)
            self.last = None

    def note(self, what, where_and_when):
        """Add a line."""
        epoch, slot, at = where_and_when
        STAMPS.mkdir(exist_ok=True)
        with (STAMPS / str(os.getpid())).open("a") as file:
            file.write(json.dumps({"what": what, "epoch": epoch, "slot": slot, "at": at}) + "\n")
