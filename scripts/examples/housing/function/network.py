"""What a flat sells for, from five columns that are as different in size as years and rooms."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from kubeml import KubeDataset, KubeModel

# Files beside the code belong to the function: every worker has them.
SCALES = json.loads(Path(__file__).with_name("scales.json").read_text())


class Houses(KubeDataset):
    """Rows as they were uploaded: kubeml then builds a whole batch in one go."""

    def __init__(self):
        super().__init__(dataset="houses")


class PriceNetwork(nn.Module):
    """Takes raw columns and returns prices on the scale on which it learns."""

    def __init__(self):
        super().__init__()
        # Buffers are saved with the weights: whoever loads these can use the network as it is.
        self.register_buffer("mean", torch.tensor(SCALES["mean"]))
        self.register_buffer("std", torch.tensor(SCALES["std"]))
        self.layers = nn.Sequential(
            nn.Linear(len(SCALES["mean"]), 64), nn.ReLU(),
            nn.Linear(64, 64), nn.ReLU(),
            nn.Linear(64, 1),
        )  # fmt: skip

    def forward(self, x):
        return self.layers((x - self.mean) / self.std).squeeze(1)


def to_scale(price):
    return (price - SCALES["price_mean"]) / SCALES["price_std"]


def to_price(scaled):
    return scaled * SCALES["price_std"] + SCALES["price_mean"]


class Prices(KubeModel):
    def configure_optimizers(self):
        # Called anew in every epoch: so the learning rate falls by 30 % from each to the next.
        return torch.optim.Adam(self.parameters(), lr=self.lr * 0.7 ** (self.epoch - 1))

    def train(self, batch, batch_index):
        x, price = batch
        self.optimizer.zero_grad()
        loss = F.mse_loss(self(x), to_scale(price))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self, batch, batch_index):
        x, price = batch
        out = self(x)
        # A price is never quite right: the share of close guesses takes the place of accuracy.
        is_close = (to_price(out) - price).abs() < 0.1 * price
        return 100 * is_close.float().mean().item(), F.mse_loss(out, to_scale(price)).item()

    def infer(self, data):
        x = torch.tensor([[float(flat[name]) for name in SCALES["columns"]] for flat in data])
        return [round(price, 1) for price in to_price(self(x)).tolist()]


def main():
    return Prices(PriceNetwork(), Houses()).start()
