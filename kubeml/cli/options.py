"""Options that several commands share, and the client that they all use."""

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from kubeml.cli import output

if TYPE_CHECKING:
    from brokers.settings import Settings
    from kubeml.client.client import Client

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print names or ids alone.")]
SlotsPerGpu = Annotated[
    int | None,
    typer.Option("--slots-per-gpu", min=1, help="Worker processes on each GPU. [default: 1]"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
JobIdOption = Annotated[str | None, typer.Option("--id", help="Job id, as `train` printed it.")]
JobIdArgument = Annotated[str | None, typer.Argument(metavar="ID", show_default=False)]
NameOption = Annotated[str | None, typer.Option("--name", "-n", help="Its name.")]
NameArgument = Annotated[str | None, typer.Argument(metavar="NAME", show_default=False)]

#: A command that takes longer than this checks whether the servers answer.
_QUIET_FOR_S = 4.0


def connect() -> "Client":
    """Return a client on the settings from environment, file and profile."""
    # Imported here: `kubeml --help` must not pay for the libraries underneath.
    from kubeml.client.client import Client

    client = Client()
    waiting = threading.Timer(_QUIET_FOR_S, _tell_who_is_silent, [client.settings])
    waiting.daemon = True
    waiting.start()
    return client


def _tell_who_is_silent(settings: "Settings") -> None:
    """Say which server hangs: a command may wait a minute or two for its answer."""
    from kubeml.ops.probe import silent_servers

    for silence in silent_servers(settings).values():
        output.warn(f"{silence}; still trying, Ctrl-C ends it")
