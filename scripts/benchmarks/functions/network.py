"""LeNet on MNIST in plain PyTorch: what every contestant trains, and how it reads a batch."""

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn


class LeNet(nn.Module):
    """44,426 parameters; images of 1 x 28 x 28."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(256, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        """Scores of the ten digits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


def initialise(network: nn.Module) -> None:
    """Xavier weights, biases of 0.01."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.01)


def make_optimizer(parameters, lr: float) -> torch.optim.Optimizer:
    """The optimizer of every contestant."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)


def gather(images: NDArray, labels: NDArray, rows) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of those rows in one go: (batch, 1, 28, 28) of float32, (batch,) of int64."""
    x = torch.from_numpy(images[rows]).float().div_(255).sub_(0.1307).div_(0.3081).unsqueeze_(1)
    return x, torch.from_numpy(labels[rows]).long()


def step(network, optimizer: torch.optim.Optimizer, batch) -> float:
    """One optimizer step; returns the loss."""
    x, y = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(network(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def num_correct(network, batch) -> int:
    """How many digits of the batch are recognised."""
    x, y = batch
    return int((network(x).argmax(1) == y).sum())
