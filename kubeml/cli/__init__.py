"""The command line: one file per noun, all of it on top of ``kubeml.Client``."""

from kubeml.cli.app import main

__all__ = ["main"]
