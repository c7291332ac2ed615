"""``kubeml probe``: the check that containers' probes run."""

from typing import Annotated

import typer

from kubeml.cli import output


def probe(
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help="worker, ps, control or flower; any but Flower.")
    ] = "",
    ready: Annotated[
        bool, typer.Option("--ready", help="Is it announced to the pool, and do servers answer?")
    ] = False,
    within: Annotated[
        float, typer.Option("--within", min=1, help="Seconds in which it must have made progress.")
    ] = 30.0,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Flower's port.")] = 5555,
) -> None:
    """Check the processes of this machine that share this KUBEML_HOME: exit 0 if they are well.

    Alive is who goes round its main loop, or cannot while a server hangs; --ready asks them, too.
    """
    from brokers.settings import Settings
    from kubeml.errors import InvalidOption
    from kubeml.ops.probe import ROLES, check_alive, check_flower, check_ready
    from kubeml.validation import check_number

    if role not in {"", *ROLES}:
        raise InvalidOption(option="ROLE", got=repr(role), expected=", ".join(ROLES))
    # typer's `min` would let infinity through, by which every process is alive.
    check_number("--within", within, above=0.0)
    if role == "flower":
        check_flower(port)
        output.line("flower answers")
        return
    settings = Settings.load()
    found = check_alive(settings, role, within_s=within)
    if ready:
        check_ready(settings, found)
    for living in found:
        why = f", and {living.waits_for}" if living.waits_for else ""
        output.line(f"{living.sign.name}: progress {living.sign.age_s:.1f} s ago{why}")
