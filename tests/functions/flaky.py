"""Like tiny, but train() fails the first time a marker file can be made."""

from pathlib import Path

from tiny import Net, Points, Tiny

MARKER = Path("@MARKER@")


class Flaky(Tiny):
    def train(self, batch, batch_index):
        if self.args._func_id == 1 and self.epoch == 1 and batch_index == 1:
            try:
                MARKER.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                raise OSError("the cable came loose")
        return super().train(batch, batch_index)


def main():
    return Flaky(Net(), Points()).start()
