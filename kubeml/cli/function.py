"""``kubeml function`` (alias ``fn``): the code of networks."""

from pathlib import Path
from typing import Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, NameArgument, NameOption, Quiet, Yes, connect

app = typer.Typer(
    help="Create and manage functions: a network and how to train it.", no_args_is_help=True
)

Code = Annotated[Path, typer.Option("--code", help="Python file or folder that defines main().")]
Device = Annotated[str, typer.Option("--device", help="What it will train on: cpu or gpu.")]
Check = Annotated[
    bool, typer.Option("--check/--no-check", help="Build the model and try one step first.")
]


@app.command()
def create(
    code: Code,
    by_name: NameArgument = None,
    name: NameOption = None,
    device: Device = "cpu",
    check: Check = True,
    as_json: AsJson = False,
) -> None:
    """Create a function from a file or folder; a broken one is refused."""
    _put(output.either(name, by_name, option="--name"), code, device, check, as_json, replace=False)


@app.command()
def update(
    code: Code,
    by_name: NameArgument = None,
    name: NameOption = None,
    device: Device = "cpu",
    check: Check = True,
    as_json: AsJson = False,
) -> None:
    """Replace a function's code. Jobs under way go on with the code they began with."""
    _put(output.either(name, by_name, option="--name"), code, device, check, as_json, replace=True)


@app.command("list")
def list_(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the functions."""
    with connect() as client:
        functions = client.functions.list()
    output.rows(
        functions,
        ("NAME", "ENTRY", "SIZE", "SHA256", "CREATED"),
        lambda f: (f.name, f.entry, output.size(f.size), f.sha256[:12], output.age(f.created_at)),
        as_json_=as_json,
        quiet=quiet,
        right=("SIZE",),
        empty="no functions yet",
    )


@app.command()
def show(
    by_name: NameArgument = None,
    name: NameOption = None,
    as_json: AsJson = False,
    source: Annotated[bool, typer.Option("--source", help="Print its code too.")] = False,
) -> None:
    """Show one function."""
    with connect() as client:
        info = client.functions.show(output.either(name, by_name, option="--name"))
        code = client.functions.source(info.name) if source else {}
    if as_json:
        output.as_json(info.to_wire() | ({"source": code} if source else {}))
        return
    output.fields(
        [
            ("name", info.name),
            ("entry", info.entry),
            ("size", output.size(info.size)),
            ("sha256", info.sha256),
            ("created", output.age(info.created_at)),
        ]
    )
    for file, text in code.items():
        output.line(f"\n# {file}\n{text.rstrip()}")


@app.command()
def delete(by_name: NameArgument = None, name: NameOption = None, yes: Yes = False) -> None:
    """Delete a function's name. What was trained with it stays usable."""
    chosen = output.either(name, by_name, option="--name")
    with connect() as client:
        client.functions.show(chosen)
        output.confirm(f"delete function {chosen}", yes=yes)
        client.functions.delete(chosen)
    output.say(f"function {chosen} deleted")


def _put(name: str, code: Path, device: str, check: bool, as_json: bool, *, replace: bool) -> None:
    from kubeml.validation import check_choice

    check_choice("--device", device, ("cpu", "gpu"))
    with connect() as client:
        info = client.functions.create(name, code, device=device, check=check, replace=replace)
    if as_json:
        output.as_json(info.to_wire())
    else:
        done = "updated" if replace else "created"
        output.say(f"function {info.name} {done} ({info.sha256[:12]})")
