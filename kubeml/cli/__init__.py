"""The command line: one file per noun, all of it on top of ``kubeml.Client``."""

import signal


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: the process's own arguments, unless others are given."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing was done yet: Ctrl-C ends us as it does other tools, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kubeml.cli.app import main as run

    run(arguments)


__all__ = ["main"]
