"""``kubeml top``: a live view of the pool."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, connect
from kubeml.errors import BackendRefused, BackendUnreachable

if TYPE_CHECKING:
    from kubeml.client.client import Client


def top(
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and print it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show live who does what: jobs with speed and time left, workers, queues. q leaves.

    Where stdout is no terminal it looks once. Speeds are those of the last rounds, so that one
    look is enough for them.
    """
    with connect() as client:
        if as_json:
            output.as_json(client.pool().to_wire())
        elif once or not output.stdout_is_live():
            from kubeml.cli.views.top import screen

            console = output.stdout()
            width = console.width if sys.stdout.isatty() else None
            console.print(screen(client.pool(), width=width))
        else:
            _live(client, interval)


def _live(client: "Client", interval_s: float) -> None:
    """Look again and again on the terminal's other screen, until q or Ctrl-C."""
    from rich.live import Live

    from kubeml.cli.views.top import screen

    view, trouble = client.pool(), ""
    console = output.stdout()
    try:
        with (
            _signals() as interrupted,
            _keys() as pressed,
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while not interrupted():
                live.update(
                    screen(view, width=console.width, height=console.height, trouble=trouble),
                    refresh=True,
                )
                if pressed(interval_s) in {"q", "Q"}:
                    return
                try:
                    view, trouble = client.pool(), ""
                except (BackendUnreachable, BackendRefused) as err:
                    # The view stays, so that the user sees when the server comes back.
                    trouble = str(err)
    except KeyboardInterrupt:
        # Ctrl-C is the usual way to leave such a view.
        return


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that returns the key pressed within so many seconds; "" for none."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(within_s: float) -> str:
        if select.select([terminal], [], [], within_s)[0]:
            # The terminal is readable, yet nothing can be read: it is gone.
            return (os.read(terminal, 1) or b"q").decode(errors="replace")
        return ""

    try:
        # Keys come at once and are not echoed; Ctrl-C stays a signal.
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _no_key(within_s: float) -> str:
    time.sleep(within_s)
    return ""


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM end the view in order; else the terminal would stay on its other screen.

    Yields a function that returns whether Ctrl-C was pressed. The exception alone does not
    suffice: raised in a callback or a destructor, it gets no further and is lost.
    """
    pressed = False

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def interrupt(_number: int, _: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGTERM, leave), (signal.SIGINT, interrupt))
    }
    try:
        yield lambda: pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
