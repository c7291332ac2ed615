"""Like tiny, but every batch takes a moment until a file is there: a job that lasts till then."""

import time
from pathlib import Path

from tiny import Net, Points, Tiny

HURRY = Path("@HURRY@")


class Paced(Tiny):
    def train(self, batch, batch_index):
        if not HURRY.exists():
            time.sleep(0.06)
        return super().train(batch, batch_index)


def main():
    return Paced(Net(), Points()).start()
