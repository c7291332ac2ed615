"""The command line, where ``kubeml`` begins: one file per noun, on top of ``kubeml.Client``.

What a command works with is imported inside its function: all commands are defined at every start,
and `kubeml --help` must not wait for what only one of them needs.
"""

import signal


def main(arguments: list[str] | None = None) -> None:
    """Run the command line on the process's own arguments, unless others are given."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Nothing has been done yet: let Ctrl-C end us as it ends other tools, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kubeml.cli.app import main as run

    run(arguments)


__all__ = ["main"]
