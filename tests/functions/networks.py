"""Networks that are awkward to merge, as users write them; each main_* is one function."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from kubeml import KubeDataset, KubeModel


class Data(KubeDataset):
    def __init__(self, name):
        super().__init__(dataset=name)


class Classifier(KubeModel):
    def configure_optimizers(self):
        return torch.optim.SGD(
            [p for p in self.parameters() if p.requires_grad], lr=self.lr, momentum=0.9
        )

    def train(self, batch, batch_index):
        x, y = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self, batch, batch_index):
        x, y = batch
        out = self(x)
        return 100.0 * (out.argmax(1) == y).float().mean().item(), F.cross_entropy(out, y).item()

    def infer(self, data):
        return self(torch.tensor(data)).argmax(1)


class Adam(Classifier):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Regressor(Classifier):
    def train(self, batch, batch_index):
        x, y = batch
        self.optimizer.zero_grad()
        loss = F.mse_loss(self(x).squeeze(1), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def validate(self, batch, batch_index):
        x, y = batch
        out = self(x).squeeze(1)
        return 100.0 * ((out - y).abs() < 1.0).float().mean(), F.mse_loss(out, y)


class Tied(nn.Module):
    """The decoder shares the encoder's weight; the first layer is frozen."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Linear(8, 8)
        self.encode = nn.Linear(8, 8, bias=False)
        self.decode = nn.Linear(8, 8, bias=False)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(8, 3)
        for p in self.fixed.parameters():
            p.requires_grad = False

    def forward(self, x):
        return self.head(self.decode(torch.tanh(self.encode(self.fixed(x)))))


class Half(nn.Module):
    """bfloat16 weights inside, float32 outside."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).bfloat16()

    def forward(self, x):
        return self.body(x.bfloat16()).float()


def batchnorm():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def plain(width=3):
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, width))


MODELS = {
    "batchnorm": lambda: Classifier(batchnorm(), Data("points")),
    "adam": lambda: Adam(plain(), Data("points")),
    "tied": lambda: Classifier(Tied(), Data("points")),
    "regression": lambda: Regressor(plain(1), Data("line")),
    "float64": lambda: Classifier(plain().double(), Data("points64")),
    "half": lambda: Classifier(Half(), Data("points")),
}


def make(kind):
    return copy.copy(MODELS[kind])()
