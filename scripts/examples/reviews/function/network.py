"""Does a remark please? An Embedding and a GRU over the words' numbers."""

import torch
import torch.nn.functional as F
from torch import nn
from vocabulary import PADDING, WORDS, encode

from kubeml import KubeDataset, KubeModel


class Remarks(KubeDataset):
    def __init__(self):
        super().__init__(dataset="reviews")


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), 16, padding_idx=PADDING)
        self.read = nn.GRU(16, 32, batch_first=True)
        self.judge = nn.Linear(32, 2)

    def forward(self, words):
        states, _ = self.read(self.embed(words))
        # What the GRU knows after the last word, not after the padding behind it.
        last = (words != PADDING).sum(1).clamp(min=1) - 1
        return self.judge(states[torch.arange(len(words)), last])


class ReviewModel(KubeModel):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def train(self, batch, batch_index):
        words, pleases = batch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self(words), pleases)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def validate(self, batch, batch_index):
        words, pleases = batch
        out = self(words)
        accuracy = 100 * (out.argmax(1) == pleases).float().mean()
        return accuracy.item(), F.cross_entropy(out, pleases).item()

    def infer(self, data):
        words = torch.tensor([encode(text) for text in data])
        chances = self(words).softmax(1)[:, 1].tolist()
        return [{"pleases": chance > 0.5, "chance": round(chance, 3)} for chance in chances]


def main():
    return ReviewModel(Reader(), Remarks()).start()
