"""Options that several commands share, flags made from declared options, and the client."""

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from kubeml.cli import output
from kubeml.jobs.options import Option, options_of

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


def with_flags_of(
    request: type, *, after: Mapping[str, str]
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command a flag for each option of ``request``, beside its own.

    Args:
        request: A dataclass of options.
        after: Flag to the one that it follows in ``--help``, where it is not in its place.

    Returns:
        A decorator for a command that takes the options as ``**options``, by their fields' names.
        An option that was not given and has no default is not among them.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in own}

        def run(**values: Any) -> int:
            given = {n: v for n, v in values.items() if v is not None or n in names}
            return command(**given)

        flags = [*flags_of(request), *own]
        for name, place in after.items():
            flag = next(f for f in flags if f.name == name)
            flags.remove(flag)
            flags.insert([f.name for f in flags].index(place) + 1, flag)
        run.__doc__ = command.__doc__
        # typer reads a command's flags off its signature.
        vars(run)["__signature__"] = signature.replace(parameters=flags)
        return run

    return decorate


def flags_of(request: type) -> list[inspect.Parameter]:
    """A parameter as typer wants it for each option that has a flag, in their order."""
    hints, options = get_type_hints(request), options_of(request)
    return [
        _flag(parameter, hints[parameter.name], options[parameter.name])
        for parameter in inspect.signature(request).parameters.values()
        if options[parameter.name].in_cli
    ]


def _flag(parameter: inspect.Parameter, hint: Any, option: Option) -> inspect.Parameter:
    default = parameter.default if option.cli_default is MISSING else option.cli_default
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] or [hint]
    # A number of slots, or a range: on the command line that is text.
    kind = str if str in kinds else kinds[0]
    if kind is str and isinstance(default, int):
        default = str(default)
    shown = typer.Option(*option.flags, help=option.help, metavar=option.metavar)
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if default is None else kind, shown],
    )
