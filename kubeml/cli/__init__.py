"""The command line: one file per noun, all of it on top of ``kubeml.Client``."""

import signal


def main() -> None:
    """The console script."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing was done yet: Ctrl-C ends us as it does other tools, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kubeml.cli.app import main as run

    run()


__all__ = ["main"]
