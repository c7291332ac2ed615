"""The ``kubeml`` command: it gathers the nouns, and turns errors into messages and exit codes."""

import os
import signal
import sys
from typing import Annotated, Any

import typer

from kubeml.cli import (
    access,
    chaos,
    dataset,
    flower,
    function,
    history,
    infer,
    logs,
    output,
    probe,
    roles,
    stack,
    task,
    top,
    train,
)
from kubeml.errors import KubemlError

#: The base class of typer's usage errors. It is found through one of them, since newer versions of
#: typer carry a click of their own.
_UsageProblem: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

#: The exit code that typer returns for a command that Ctrl-C ended.
_BY_CTRL_C = 130

app = typer.Typer(
    name="kubeml",
    help="Train PyTorch networks, data-parallel, on machines that come and go.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

stack.register(app)
app.add_typer(function.app, name="function")
app.add_typer(function.app, name="fn", hidden=True)
app.add_typer(dataset.app, name="dataset")
app.command("train")(train.train)
app.add_typer(task.app, name="task")
app.command("logs")(logs.logs)
app.add_typer(history.app, name="history")
app.command("infer")(infer.infer)
app.command("access", rich_help_panel="The stack")(access.access)
app.command("top", rich_help_panel="The stack")(top.top)
app.command("chaos", rich_help_panel="The stack")(chaos.chaos)
roles.register(app)
app.command("flower", rich_help_panel=roles.PANEL)(flower.flower)
app.command("probe", rich_help_panel=roles.PANEL)(probe.probe)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        output.line(version("kubeml"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train PyTorch networks, data-parallel, on machines that come and go."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and end the process with one of the documented exit codes."""
    # A reader that closes the pipe (`| head`) ends us quietly, as it ends other tools.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    debug = os.environ.get("KUBEML_DEBUG") == "1"
    try:
        result: Any = app(args=arguments, prog_name="kubeml", standalone_mode=False)
    except KubemlError as err:
        if debug:
            raise
        output.error(err)
        return err.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted()
    except typer.Exit as done:
        return done.exit_code
    except _UsageProblem as err:
        err.show()
        return int(err.exit_code)
    except Exception as err:
        if debug:
            raise
        # The border of the program: a bug of ours, reported without a screenful of our code.
        output.complain(f"unexpected error: {type(err).__name__}: {err}")
        output.hint("set KUBEML_DEBUG=1 to see where, and please report it")
        return 1
    if result == _BY_CTRL_C:
        return _interrupted()
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    output.complain("interrupted")
    return _BY_CTRL_C
