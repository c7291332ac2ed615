"""``kubeml logs``: what a function logged."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, JobIdArgument, JobIdOption, connect

if TYPE_CHECKING:
    from brokers.rounds.events import LogLine


def logs(
    by_id: JobIdArgument = None,
    job_id: JobIdOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a job's function logged with self.logger, from every worker."""
    with connect() as client:
        job = client.job(output.either(job_id, by_id, option="--id"))
        for entry in job.logs(follow=follow):
            output.line(json.dumps(entry.to_wire()) if as_json else _text(entry))


def _text(entry: "LogLine") -> str:
    at = datetime.fromtimestamp(entry.at, UTC).astimezone().strftime("%H:%M:%S")
    place = f"epoch {entry.epoch} round {entry.round} slot {entry.slot}"
    return f"{at} {entry.level:<7} {entry.worker} {place}: {entry.text}"
