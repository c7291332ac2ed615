"""``kubeml infer``: predictions with a job's weights."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kubeml.cli import output
from kubeml.cli.options import connect
from kubeml.errors import InvalidDataset


def infer(
    network: Annotated[
        str, typer.Option("--network", "-n", help="Id of the job whose weights to use.")
    ],
    datafile: Annotated[
        Path, typer.Option("--datafile", help="JSON file with a list of data points.")
    ],
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for a worker.")
    ] = 60.0,
) -> None:
    """Predict with a job's weights on a worker, and print the predictions as JSON."""
    from kubeml.validation import check_number

    check_number("--timeout", timeout, above=0.0)
    data = _read(datafile)
    with connect() as client:
        predictions = client.infer(network, data, timeout_s=timeout)
    output.line(json.dumps(predictions))


def _read(path: Path) -> list[Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as err:
        raise InvalidDataset(
            where=str(path), fault=err.strerror or str(err), hint="check --datafile"
        ) from err
    except ValueError as err:
        raise InvalidDataset(where=str(path), fault=f"is not JSON: {err}") from err
    if not isinstance(data, list) or not data:
        raise InvalidDataset(
            where=str(path),
            fault="holds no list of data points",
            hint="for example: [[0.1, 0.2], [0.3, 0.4]]",
        )
    return data
