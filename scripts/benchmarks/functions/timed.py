"""LeNet that notes its rounds."""

from model import DigitsModel
from stamping import Stamping


class TimedModel(Stamping, DigitsModel):
    """Both."""


def main():
    return TimedModel().start()
