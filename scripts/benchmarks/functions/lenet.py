"""LeNet as it is."""

from model import DigitsModel


def main():
    return DigitsModel().start()
