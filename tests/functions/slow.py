"""Like tiny, but every batch takes a moment: for tests that interrupt a training."""

import time

from tiny import Net, Points, Tiny


class Slow(Tiny):
    def train(self, batch, batch_index):
        time.sleep(0.02)
        return super().train(batch, batch_index)


def main():
    return Slow(Net(), Points()).start()
