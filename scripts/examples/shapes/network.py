"""Which shape is in the picture: a small CNN with BatchNorm, and augmented pictures."""

import torch
import torch.nn.functional as F
from torch import nn

from kubeml import KubeDataset, KubeModel

NAMES = ["disc", "ring", "square", "cross", "triangle"]
AUGMENT = True


def to_tensor(picture):
    return torch.as_tensor(picture, dtype=torch.float32).sub(90).div(60).unsqueeze(0)


class Shapes(KubeDataset):
    def __init__(self):
        super().__init__(dataset="shapes")

    def __getitem__(self, index):
        picture = to_tensor(self.data[index])
        # Pictures to validate with stay as they are.
        if AUGMENT and self.is_training():
            picture = moved(picture)
        return picture, int(self.labels[index])


def moved(picture):
    """The picture shifted by up to five pixels each way, and turned over half of the time."""
    down, right = torch.randint(-5, 6, (2,)).tolist()
    picture = picture.roll((down, right), dims=(1, 2))
    return picture.flip(1) if torch.rand(()) < 0.5 else picture


def block(channels_in, channels_out):
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def make_network():
    return nn.Sequential(
        block(1, 12), block(12, 24), block(24, 32), nn.Flatten(), nn.Linear(32 * 9, len(NAMES))
    )


class ShapeModel(KubeModel):
    def configure_optimizers(self):
        # Called anew in every epoch: so the learning rate falls by a quarter from each to the next.
        return torch.optim.AdamW(self.parameters(), lr=self.lr * 0.75 ** (self.epoch - 1))

    def train(self, batch, batch_index):
        x, kind = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(x), kind)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self, batch, batch_index):
        x, kind = batch
        out = self(x)
        accuracy = 100 * (out.argmax(1) == kind).float().mean()
        return accuracy.item(), F.cross_entropy(out, kind).item()

    def infer(self, data):
        x = torch.stack([to_tensor(picture) for picture in data])
        return [NAMES[kind] for kind in self(x).argmax(1).tolist()]


def main():
    return ShapeModel(make_network(), Shapes()).start()
