"""A function whose train() fails in the second epoch."""

from tiny import Net, Points, Tiny


class Raises(Tiny):
    def train(self, batch, batch_index):
        if self.epoch == 2:
            raise ValueError("the ink has run out")
        return super().train(batch, batch_index)


def main():
    return Raises(Net(), Points()).start()
