"""A function that fails on the short batch that ends an epoch."""

from tiny import Net, Points, Tiny


class RaisesLate(Tiny):
    def train(self, batch, batch_index):
        if len(batch[0]) < 16:
            raise ValueError("the paper has run out")
        return super().train(batch, batch_index)


def main():
    return RaisesLate(Net(), Points()).start()
