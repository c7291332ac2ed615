"""Finds unusual heartbeats without having seen one: an autoencoder that learns ordinary ones."""

import torch
from torch import nn

from kubeml import KubeDataset, KubeModel


class Beats(KubeDataset):
    def __init__(self):
        super().__init__(dataset="beats")


class Autoencoder(nn.Module):
    """Squeezes a beat into six numbers and draws it again; what it cannot draw is unusual."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 6))
        self.decode = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 64))
        # How large the error of ordinary beats is: learned on the way, as BatchNorm does.
        self.register_buffer("typical_error", torch.zeros(()))
        self.register_buffer("typical_square", torch.zeros(()))

    def forward(self, x):
        """The error of every row, and whether it is unusual."""
        error = (self.decode(self.encode(x)) - x).square().mean(1)
        if self.training:
            with torch.no_grad():
                self.typical_error.lerp_(error.mean(), 0.05)
                self.typical_square.lerp_(error.square().mean(), 0.05)
        return error, error > self.limit()

    def limit(self):
        """Four standard deviations above the mean."""
        variance = self.typical_square - self.typical_error.square()
        return self.typical_error + 4 * variance.clamp(min=0).sqrt()


class BeatModel(KubeModel):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def train(self, batch, batch_index):
        x, _ = batch  # the labels play no part
        self.optimizer.zero_grad()
        error, _ = self(x)
        loss = error.mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self, batch, batch_index):
        x, is_unusual = batch
        error, looks_unusual = self(x)
        accuracy = 100 * (looks_unusual == is_unusual.bool()).float().mean()
        return accuracy.item(), error.mean().item()

    def infer(self, data):
        error, looks_unusual = self(torch.tensor(data))
        return [
            {"error": round(e, 5), "is_unusual": unusual}
            for e, unusual in zip(error.tolist(), looks_unusual.tolist(), strict=True)
        ]


def main():
    return BeatModel(Autoencoder(), Beats()).start()
