"""``python -m kubeml``."""

from kubeml.cli import main

main()
