"""``kubeml history``: what was trained, epoch by epoch."""

from collections.abc import Sequence
from typing import Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, JobIdArgument, JobIdOption, Quiet, Yes, connect
from kubeml.jobs.results import EpochRow, JobStatus

#: Numbers, but for the last one.
_COLUMNS = (
    "EPOCH",
    "LOSS",
    "VAL LOSS",
    "ACCURACY",
    "N",
    "WORKERS",
    "ROUNDS",
    "SECONDS",
    "EXPECTED",
    "SAMPLES/S",
    "RETRIES",
    "DECISION",
)

app = typer.Typer(help="Look at finished epochs and jobs.", no_args_is_help=True)

_BLOCKS = "▁▂▃▄▅▆▇█"


@app.command()
def get(by_id: JobIdArgument = None, job_id: JobIdOption = None, as_json: AsJson = False) -> None:
    """Show a job's epochs: losses, accuracy, parallelism, times as they were and were expected."""
    with connect() as client:
        job = client.job(output.either(job_id, by_id, option="--id"))
        rows = job.history()
    if as_json:
        output.as_json([row.to_wire() for row in rows])
        return
    if not rows:
        output.say("no epoch is finished yet")
        return
    output.table(_COLUMNS, [_cells(row) for row in rows], right=_COLUMNS[:-1])
    if len(rows) > 1:
        output.line("")
        for label, values in (
            ("loss", [row.train_loss for row in rows]),
            ("accuracy", [row.accuracy for row in rows]),
        ):
            known = [value for value in values if value is not None]
            if known:
                output.line(f"{label:<9}{sparkline(known)}  {known[0]:.4g} → {known[-1]:.4g}")


@app.command("list")
def list_(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="The newest so many alone.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List every job there is a record of, newest first."""
    with connect() as client:
        jobs = client.histories()[:limit]
    output.rows(
        jobs,
        ("ID", "FUNCTION", "DATASET", "STATE", "EPOCHS", "ACCURACY", "LOSS", "SUBMITTED"),
        lambda s: (
            s.id,
            s.spec.function,
            s.spec.dataset,
            s.state,
            f"{s.epoch}/{s.spec.epochs}",
            output.number(_accuracy(s)),
            output.number(_loss(s), digits=4),
            output.age(s.spec.created_at),
        ),
        as_json_=as_json,
        quiet=quiet,
        name=lambda s: str(s.id),
        right=("EPOCHS", "ACCURACY", "LOSS"),
        empty="no jobs yet: kubeml train",
    )


@app.command()
def delete(by_id: JobIdArgument = None, job_id: JobIdOption = None, yes: Yes = False) -> None:
    """Delete a job's history, checkpoints and weights for good."""
    chosen = output.either(job_id, by_id, option="--id")
    with connect() as client:
        client.job(chosen)
        output.confirm(f"delete the history and weights of job {chosen}", yes=yes)
        client.delete_history(chosen)
    output.say(f"history of job {chosen} deleted")


@app.command()
def prune(yes: Yes = False, quiet: Quiet = False) -> None:
    """Delete the histories, checkpoints and weights of all ended jobs for good."""
    with connect() as client:
        output.confirm("delete the histories and weights of ALL ended jobs", yes=yes)
        gone = client.prune_histories()
    if quiet:
        for job_id in gone:
            output.line(job_id)
    else:
        output.say(f"{len(gone)} histories deleted")


def sparkline(values: Sequence[float]) -> str:
    """The values as a line of blocks, lowest to highest; at most 60, evenly picked."""
    if len(values) > 60:
        values = [values[round(i * (len(values) - 1) / 59)] for i in range(60)]
    low, high = min(values), max(values)
    span = high - low or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values)


def _cells(row: EpochRow) -> Sequence[str]:
    speed = row.samples / row.duration_s if row.duration_s else 0.0
    return (
        str(row.epoch),
        output.number(row.train_loss, digits=4),
        output.number(row.val_loss, digits=4),
        output.number(row.accuracy),
        str(row.parallelism),
        str(row.num_workers),
        str(row.rounds),
        f"{row.duration_s:.1f}",
        output.number(row.expected_s, digits=1),
        f"{speed:,.0f}",
        str(row.retries),
        row.decision,
    )


def _accuracy(status: JobStatus) -> float | None:
    if status.end is not None:
        return status.end.accuracy
    return status.last.accuracy if status.last else None


def _loss(status: JobStatus) -> float | None:
    if status.end is not None:
        return status.end.train_loss
    return status.last.train_loss if status.last else None
