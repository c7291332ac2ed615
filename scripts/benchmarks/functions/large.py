"""A network of so many bytes, all sent in every round, that computes for so many seconds."""

import time

import torch
from constants import NUM_BYTES, STEP_S
from stamping import Stamping
from torch import nn

from kubeml import KubeDataset, KubeModel

#: Elements of one parameter: layers as a large network might have them.
PART = 2**20


class Rows(KubeDataset):
    """Rows that nobody looks at."""

    def __init__(self):
        super().__init__(dataset="digits")


class Bulk(nn.Module):
    """Parameters alone."""

    def __init__(self):
        super().__init__()
        whole, rest = divmod(NUM_BYTES // 4, PART)
        sizes = [PART] * whole + [rest] * (rest > 0)
        self.parts = nn.ParameterList(torch.full((size,), 0.5) for size in sizes)


class BulkModel(KubeModel):
    """Changes one number a step."""

    def __init__(self):
        super().__init__(Bulk(), Rows())

    def configure_optimizers(self):
        """One that has nothing to do: there are no gradients."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train(self, batch, batch_index):
        """Keep a core busy (sleeping would leave it to the merge), and change something."""
        until = time.perf_counter() + STEP_S
        while time.perf_counter() < until:
            self._network.parts[0].detach().sum()
        with torch.no_grad():
            self._network.parts[0][0] += 1
        return 0.0

    def validate(self, batch, batch_index):
        """Nothing to see."""
        return 0.0, 0.0


class TimedBulk(Stamping, BulkModel):
    """Notes its rounds."""


def main():
    return TimedBulk().start()
