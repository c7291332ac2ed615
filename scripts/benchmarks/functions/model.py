"""The network as a kubeml function; the files with ``main`` next to it choose a variant."""

import torch.nn.functional as F
from kubeml import KubeDataset, KubeModel
from network import LeNet, gather, initialise, make_optimizer, num_correct, step


class Digits(KubeDataset):
    """Batches made in one go, as every contestant makes them."""

    def __init__(self):
        super().__init__(dataset="digits")

    def __getitems__(self, rows):
        return gather(self.data, self.labels, rows)


class DigitsModel(KubeModel):
    """A network, LeNet unless given, trained as every contestant trains it."""

    def __init__(self, network=None):
        super().__init__(network or LeNet(), Digits())

    def configure_optimizers(self):
        """The common optimizer."""
        return make_optimizer(self.parameters(), self.lr)

    def init(self, model):
        """The common initial weights."""
        initialise(model)

    def train(self, batch, batch_index):
        """The common step."""
        return step(self, self.optimizer, batch)

    def validate(self, batch, batch_index):
        """Accuracy in percent, and loss."""
        x, y = batch
        return 100 * num_correct(self, batch) / self.batch_size, F.cross_entropy(self(x), y).item()
