"""A linear classifier whose training has the same bits on every CPU: all its sums are exact.

Features are small whole numbers, gradients are sums of them, and Rprop adds powers of two: no
float32 is ever rounded, so the order of a sum, wide registers and fused multiplication change
nothing. It keeps state in its optimizer, which a checkpoint has to carry. Where EXACT_PAUSE_S is
set it takes its time, so that a job can be met in the middle.
"""

import os
import time

import torch
import torch.nn.functional as F
from torch import nn

from kubeml import KubeDataset, KubeModel

PAUSE_S = float(os.environ.get("EXACT_PAUSE_S", "0"))


class Points(KubeDataset):
    def __init__(self):
        super().__init__(dataset="points")


class Exact(KubeModel):
    def __init__(self, network, dataset):
        super().__init__(network, dataset, gpu=False)

    def configure_optimizers(self):
        return torch.optim.Rprop(
            self.parameters(),
            lr=self.lr,
            etas=(0.5, 2.0),
            step_sizes=(2**-6, 1.0),
        )

    def init(self, model):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randint(-2, 3, p.shape))

    def train(self, batch, batch_index):
        time.sleep(PAUSE_S)
        x, y = batch
        self.optimizer.zero_grad()
        loss = margin(self(x), y)
        loss.backward()
        self.optimizer.step()
        if batch_index == 0:
            self.logger.info("first loss %.3f", loss.item())
        return loss.item() / len(y)

    def validate(self, batch, batch_index):
        x, y = batch
        out = self(x)
        correct = (out.argmax(1) == y).sum().item()
        return 100 * correct / self.batch_size, margin(out, y).item() / len(y)

    def infer(self, data):
        return self(torch.tensor(data, dtype=torch.float32)).argmax(1)


def margin(out, y):
    right = out.gather(1, y[:, None])
    others = out.scatter(1, y[:, None], -1e4)
    return F.relu(1 + others.max(1).values - right.squeeze(1)).sum()


def main():
    return Exact(nn.Linear(8, 3), Points()).start()
