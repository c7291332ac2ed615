"""A small classifier on 8 features with momentum SGD and dropout, as a user would write it."""

import torch
import torch.nn.functional as F
from torch import nn

from kubeml import KubeDataset, KubeModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(8, 16)
        self.drop = nn.Dropout(0.1)
        self.two = nn.Linear(16, 3)

    def forward(self, x):
        return self.two(self.drop(F.relu(self.one(x))))


class Points(KubeDataset):
    def __init__(self):
        super().__init__(dataset="points")


class Tiny(KubeModel):
    def __init__(self, network, dataset):
        super().__init__(network, dataset, gpu=False)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)

    def init(self, model):
        for p in model.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def train(self, batch, batch_index):
        x, y = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(x), y)
        loss.backward()
        self.optimizer.step()
        if batch_index == 0:
            self.logger.info(f"first loss {loss.item():.3f}")
        return loss.item()

    def validate(self, batch, batch_index):
        x, y = batch
        out = self(x)
        correct = (out.argmax(1) == y).sum().item()
        return 100 * correct / self.batch_size, F.cross_entropy(out, y).item()

    def infer(self, data):
        return self(torch.tensor(data, dtype=torch.float32)).argmax(1)


def main():
    return Tiny(Net(), Points()).start()
