"""The network of ResNet-18's size."""

from model import DigitsModel
from resnet import ResNet18


def main():
    return DigitsModel(ResNet18()).start()
