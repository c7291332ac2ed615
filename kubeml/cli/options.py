"""Options that several commands share."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kubeml.client import Client

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


def connect() -> "Client":
    """A client on the settings found by environment, file and profile."""
    # Imported here: `kubeml --help` must not pay for the libraries underneath.
    from kubeml.client import Client

    return Client()
