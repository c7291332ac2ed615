"""Like tiny, but after the first epoch its weights are not finite."""

import torch
from tiny import Net, Points, Tiny


class Diverges(Tiny):
    def train(self, batch, batch_index):
        loss = super().train(batch, batch_index)
        if self.epoch == 2:
            with torch.no_grad():
                next(self.parameters()).fill_(float("nan"))
        return loss


def main():
    return Diverges(Net(), Points()).start()
