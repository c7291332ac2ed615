"""Like tiny, but main() ends the process, as the system does when memory is short."""

import os
import signal

from tiny import Net, Points, Tiny


def main():
    os.kill(os.getpid(), signal.SIGKILL)
    return Tiny(Net(), Points()).start()
