"""``kubeml dataset``: the data that networks are trained on."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, NameArgument, NameOption, Quiet, Yes, connect
from kubeml.cli.views.follow import many

if TYPE_CHECKING:
    from brokers.shards.manifest import SplitInfo

app = typer.Typer(help="Upload and manage datasets.", no_args_is_help=True)

_FILE = "A .npy, .npz:MEMBER or .pkl (numpy arrays only) file with the {}."


@app.command()
def create(
    traindata: Annotated[str, typer.Option(help=_FILE.format("training features"))],
    trainlabels: Annotated[str, typer.Option(help=_FILE.format("training labels"))],
    testdata: Annotated[str, typer.Option(help=_FILE.format("test features"))],
    testlabels: Annotated[str, typer.Option(help=_FILE.format("test labels"))],
    by_name: NameArgument = None,
    name: NameOption = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Upload a dataset. It becomes visible when all of it is there."""
    chosen = output.either(name, by_name, option="--name")
    with connect() as client, _warnings_told(), _bar(chosen, quiet=quiet) as progress:
        manifest = client.datasets.create(
            chosen,
            train_data=traindata,
            train_labels=trainlabels,
            test_data=testdata,
            test_labels=testlabels,
            on_progress=progress,
        )
    if as_json:
        output.as_json(manifest.to_wire())
    elif quiet:
        output.line(manifest.name)
    else:
        train, test = manifest.train, manifest.test
        output.say(
            f"dataset {manifest.name}: {many(train.num_rows, 'training row')} "
            f"and {many(test.num_rows, 'test row')}"
        )


@app.command("list")
def list_(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """List the datasets."""
    with connect() as client:
        datasets = client.datasets.list()
    output.rows(
        datasets,
        ("NAME", "TRAIN", "TEST", "FEATURES", "LABELS", "SIZE", "CREATED"),
        lambda d: (
            d.name,
            str(d.train.num_rows),
            str(d.test.num_rows),
            _data(d.train),
            _labels(d.train),
            output.size(d.num_bytes),
            output.age(d.created_at),
        ),
        as_json_=as_json,
        quiet=quiet,
        right=("TRAIN", "TEST", "SIZE"),
        empty="no datasets yet: kubeml dataset create",
    )


@app.command()
def show(by_name: NameArgument = None, name: NameOption = None, as_json: AsJson = False) -> None:
    """Show one dataset: rows, shapes, dtypes, shards."""
    with connect() as client:
        manifest = client.datasets.show(output.either(name, by_name, option="--name"))
    if as_json:
        output.as_json(manifest.to_wire())
        return
    output.fields(
        [
            ("name", manifest.name),
            ("version", manifest.version),
            ("features", _data(manifest.train)),
            ("labels", _labels(manifest.train)),
            ("training rows", f"{manifest.train.num_rows} in {len(manifest.train.shards)} shards"),
            ("test rows", f"{manifest.test.num_rows} in {len(manifest.test.shards)} shards"),
            ("size", output.size(manifest.num_bytes)),
            ("created", output.age(manifest.created_at)),
        ]
    )


@app.command()
def delete(by_name: NameArgument = None, name: NameOption = None, yes: Yes = False) -> None:
    """Delete a dataset and its shards; refused while a job is training on it."""
    chosen = output.either(name, by_name, option="--name")
    with connect() as client:
        client.datasets.show(chosen)
        output.confirm(f"delete dataset {chosen} and all its data", yes=yes)
        client.delete_dataset(chosen)
    output.say(f"dataset {chosen} deleted")


def _data(split: "SplitInfo") -> str:
    return f"{split.data_dtype}{list(split.data_shape)}"


def _labels(split: "SplitInfo") -> str:
    return f"{split.labels_dtype}{list(split.labels_shape) or ''}"


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Print each warning about the data as one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        output.warn(str(warning.message))


@contextmanager
def _bar(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Draw a progress bar on stderr, if it is a terminal."""
    if quiet or not output.stderr_is_live():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (
        "[progress.description]{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"uploading {name}", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
