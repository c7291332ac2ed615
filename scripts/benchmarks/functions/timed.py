"""LeNet that notes when the first batch of a round begins, and when the last one has ended.

Lines of JSON in KUBEML_HOME/stamps/PID: what, epoch, slot, and the time by a clock that all
processes of a machine share. The end is noted when the next round begins, outside of what is
measured.
"""

import json
import os
import time
from pathlib import Path

from model import DigitsModel

STAMPS = Path(os.environ["KUBEML_HOME"]) / "stamps"


class TimedModel(DigitsModel):
    """Notes its rounds."""

    last = None

    def train(self, batch, batch_index):
        """The common step, with the time taken before and after it."""
        if batch_index == 0:
            now = time.monotonic()
            self.flush()
            self.note("begin", now)
        loss = super().train(batch, batch_index)
        self.last = (self.epoch, self.args._func_id, time.monotonic())
        return loss

    def validate(self, batch, batch_index):
        """The common validation; the last round has ended."""
        self.flush()
        return super().validate(batch, batch_index)

    def flush(self):
        """Note the end of the round before."""
        if self.last is not None:
            epoch, slot, at = self.last
            self.note("end", at, epoch=epoch, slot=slot)
            self.last = None

    def note(self, what, at, *, epoch=None, slot=None):
        """Add a line."""
        epoch = self.epoch if epoch is None else epoch
        slot = self.args._func_id if slot is None else slot
        STAMPS.mkdir(exist_ok=True)
        with (STAMPS / str(os.getpid())).open("a") as file:
            file.write(json.dumps({"what": what, "epoch": epoch, "slot": slot, "at": at}) + "\n")


def main():
    return TimedModel().start()
