"""The whole command line as one object, from which the documents' page of commands is made."""

from typer.main import get_command

from kubeml.cli.app import app

command = get_command(app)
