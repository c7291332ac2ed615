"""``kubeml train``: submit a training job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from kubeml.cli import output
from kubeml.cli.follow import follow_job
from kubeml.cli.options import AsJson, Quiet, connect, with_flags_of
from kubeml.errors import Interrupted, InvalidOption
from kubeml.jobs.options import TrainRequest


@with_flags_of(TrainRequest, after={"deadline": "policy", "sparse_avg": "k"})
def train(
    *,
    sparse_avg: Annotated[
        bool, typer.Option("--sparse-avg", help="Merge once per epoch: --K -1.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the training until it ends.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **options: Any,
) -> int:
    """Submit a training job and print its id; with --follow, show it until it ends."""
    from kubeml.client.submission import new_job_id

    if sparse_avg and options["k"] != -1:
        raise InvalidOption(
            option="--sparse-avg",
            got=f"given with --K {options['k']}",
            expected="one of the two",
            hint="--sparse-avg means --K -1",
        )
    if options["static"] and "policy" in options:
        raise InvalidOption(
            option="--static",
            got=f"given with --policy {options['policy']}",
            expected="one of the two",
        )
    # The id is known before the submission: Ctrl-C must not leave a job of unknown id behind.
    job_id = options.setdefault("job_id", new_job_id())
    with connect() as client:
        with _tells_of(job_id):
            job = client.train(**options)
            if as_json and not follow:
                output.as_json(job.status().to_wire())
            elif not as_json:
                output.line(job.id)
        if not follow:
            if not quiet and output.stderr_is_live():
                output.say(f"watch it: kubeml task watch --id {job.id}")
            return 0
        code = follow_job(job, quiet=quiet)
        if as_json:
            output.as_json(job.status().to_wire())
        return code


@contextmanager
def _tells_of(job_id: str) -> Iterator[None]:
    """Name the job if Ctrl-C comes during the submission: it may exist already."""
    try:
        yield
    except KeyboardInterrupt as err:
        raise Interrupted(
            what=f"interrupted while job {job_id} was submitted",
            hint=f"if it is there, it goes on: kubeml task stop --id {job_id}",
        ) from err
