"""A small network whose batches take a given time, on one worker a multiple of it.

It sleeps rather than computes: a machine with few cores can then have many workers, and the time of
a round is known. Weights do not depend on who trains: dropout makes them depend on the seeds.
"""

import os
import time

import torch
import torch.nn.functional as F
from constants import SLOW_TIMES, SLOW_WORKER, STEP_S
from torch import nn

from kubeml import KubeDataset, KubeModel

PACE_S = STEP_S * (SLOW_TIMES if os.environ.get("KUBEML_WORKER_NAME") == SLOW_WORKER else 1)


class Points(KubeDataset):
    """Points of three classes."""

    def __init__(self):
        super().__init__(dataset="points")


class Net(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(8, 32)
        self.drop = nn.Dropout(0.1)
        self.two = nn.Linear(32, 3)

    def forward(self, x):
        """Scores of the classes."""
        return self.two(self.drop(F.relu(self.one(x))))


class Paced(KubeModel):
    """Trains it, at a pace."""

    def __init__(self):
        super().__init__(Net(), Points())

    def configure_optimizers(self):
        """One with a state."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    def train(self, batch, batch_index):
        """A step that takes its time."""
        time.sleep(PACE_S)
        x, y = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self, batch, batch_index):
        """Accuracy in percent, and loss."""
        x, y = batch
        out = self(x)
        correct = (out.argmax(1) == y).sum().item()
        return 100 * correct / self.batch_size, F.cross_entropy(out, y).item()


def main():
    return Paced().start()
