"""``kubeml task``: the jobs under way."""

from typing import Annotated

import typer

from kubeml.cli import output
from kubeml.cli.follow import follow_job
from kubeml.cli.options import AsJson, JobIdArgument, JobIdOption, Quiet, Yes, connect
from kubeml.cli.views.audit import show_audit
from kubeml.cli.views.explain import show_times
from kubeml.cli.views.follow import many
from kubeml.errors import InvalidOption
from kubeml.jobs.results import JobStatus

app = typer.Typer(help="List, watch and stop training jobs.", no_args_is_help=True)


@app.command("list")
def list_(
    short: Annotated[bool, typer.Option("--short", help="Print ids alone.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the jobs under way, and those that ended within the hour."""
    with connect() as client:
        jobs = client.jobs()
    output.rows(
        jobs,
        ("ID", "FUNCTION", "DATASET", "STATE", "EPOCH", "N", "WORKERS", "ACCURACY", "BATCH", "LR"),
        lambda s: (
            s.id,
            s.spec.function,
            s.spec.dataset,
            s.shown_state,
            f"{s.epoch}/{s.spec.epochs}",
            str(s.parallelism or "-"),
            str(s.num_workers),
            _accuracy(s),
            str(s.spec.batch_size),
            f"{s.spec.lr:g}",
        ),
        as_json_=as_json,
        quiet=quiet or short,
        name=lambda s: str(s.id),
        right=("EPOCH", "N", "WORKERS", "ACCURACY", "BATCH", "LR"),
        empty="no jobs under way",
    )


@app.command()
def show(by_id: JobIdArgument = None, job_id: JobIdOption = None, as_json: AsJson = False) -> None:
    """Show one job: what was asked for, where it is, and why it waits or failed."""
    with connect() as client:
        status = client.job(output.either(job_id, by_id, option="--id")).status()
    if as_json:
        output.as_json(status.to_wire())
        return
    spec = status.spec
    merges = (
        "once per epoch"
        if spec.k == -1
        else "every step"
        if spec.k == 1
        else f"every {spec.k} steps"
    )
    output.fields(
        [
            ("id", status.id),
            ("state", status.shown_state),
            ("reason", status.reason),
            ("function", f"{spec.function} ({spec.function_sha256[:12]})"),
            ("dataset", f"{spec.dataset} ({spec.dataset_version})"),
            ("epoch", f"{status.epoch} of {spec.epochs}"),
            ("round", f"{status.round} of {status.rounds}" if status.rounds else ""),
            ("parallelism", f"{status.parallelism or spec.parallelism} ({_choice(status)})"),
            ("deadline", f"{spec.deadline_s:g} s" if spec.deadline_s else ""),
            ("device", spec.device),
            ("priority", str(spec.priority)),
            (
                "workers",
                f"{status.num_workers}"
                f"{f' (at most {status.max_workers})' if status.max_workers else ''}",
            ),
            ("batch", str(spec.batch_size)),
            ("lr", f"{spec.lr:g}"),
            ("merges", merges),
            ("seed", str(spec.seed)),
            ("accuracy", _accuracy(status)),
            ("submitted", output.age(spec.created_at)),
        ]
    )


@app.command()
def watch(by_id: JobIdArgument = None, job_id: JobIdOption = None, quiet: Quiet = False) -> int:
    """Show a job until it ends; Ctrl-C leaves it running."""
    with connect() as client:
        job = client.job(output.either(job_id, by_id, option="--id"))
        return follow_job(job, quiet=quiet)


@app.command()
def stop(by_id: JobIdArgument = None, job_id: JobIdOption = None) -> None:
    """Stop a job within a round; what was merged so far is kept."""
    chosen = output.either(job_id, by_id, option="--id")
    with connect() as client:
        client.job(chosen).stop()
    output.say(f"job {chosen} is being stopped")


# Extra arguments are taken here, since click would not say that a job's id has its own option.
@app.command(context_settings={"allow_extra_args": True})
def scale(
    ctx: typer.Context,
    parallelism: Annotated[
        str | None,
        typer.Argument(
            metavar="[N|FLOOR:CEILING]", show_default=False, help="Slots from the next epoch on."
        ),
    ] = None,
    job_id: JobIdOption = None,
    max_workers: Annotated[
        int | None,
        typer.Option("--max-workers", help="Workers to use at a time, from now on; 0: any number."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a running job's slots (4, or 2:16) from the next epoch on, and its workers at once."""
    chosen = _job_to_scale(job_id, [parallelism, *ctx.args])
    with connect() as client:
        job = client.job(chosen)
        now = job.scale(parallelism, max_workers=max_workers)
        status = job.status()
    if as_json:
        output.as_json(now.to_wire())
    slots = f"{now.floor}" if now.floor == now.ceiling else f"{now.floor} to {now.ceiling}"
    workers = (
        f"at most {many(now.max_workers, 'worker')}" if now.max_workers else "any number of workers"
    )
    output.say(f"job {chosen}: {many(slots, 'slot')} from the next epoch on, {workers} from now on")
    if parallelism is not None and status.epoch >= status.spec.epochs:
        output.warn(f"epoch {status.epoch} is the last one: its number of slots stays")


@app.command()
def resume(
    by_id: JobIdArgument = None,
    job_id: JobIdOption = None,
    function: Annotated[
        str | None,
        typer.Option("--function", "-f", help="Go on with this function as it stands now."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", "-e", help="Another number of epochs.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the training until it ends.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Let a FAILED or STOPPED job go on from its last checkpoint."""
    with connect() as client:
        job = client.job(output.either(job_id, by_id, option="--id"))
        job = job.resume(function=function, epochs=epochs)
        output.line(job.id)
        return follow_job(job, quiet=quiet) if follow else 0


@app.command()
def audit(
    by_id: JobIdArgument = None,
    job_id: JobIdOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every checkpoint and compare its hash.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Prove that every training row counted once in every epoch; exit 6 if it did not."""
    with connect() as client:
        result = client.job(output.either(job_id, by_id, option="--id")).audit(verify=verify)
    if as_json:
        output.as_json(result.to_wire())
    else:
        show_audit(result)
    return 0 if result.is_exact else 6


@app.command()
def explain(
    by_id: JobIdArgument = None,
    job_id: JobIdOption = None,
    epoch: Annotated[
        int | None, typer.Option("--epoch", "-e", min=1, help="Explain this epoch alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say where the time went, by epoch, round and slot, and which setting would help."""
    with connect() as client:
        times = client.job(output.either(job_id, by_id, option="--id")).explain(epoch=epoch)
    if as_json:
        output.as_json(times.to_wire())
    else:
        show_times(times)


@app.command()
def prune(yes: Yes = False, quiet: Quiet = False) -> None:
    """Forget ended jobs in the list. Their histories and weights stay."""
    with connect() as client:
        output.confirm("forget all ended jobs in the task list", yes=yes)
        gone = client.prune_jobs()
    if quiet:
        for job_id in gone:
            output.line(job_id)
    else:
        output.say(f"{many(len(gone), 'ended job')} forgotten")


def _job_to_scale(job_id: str | None, given: list[str | None]) -> str:
    """Return the job's id, which this command takes only as an option: its argument is N."""
    if not job_id:
        raise InvalidOption(
            option="--id",
            got="missing",
            expected="the id of the job",
            hint="for example: kubeml task scale --id JOB 2:16",
        )
    if len(given) > 1:
        raise InvalidOption(
            option="N",
            got=repr(" ".join(filter(None, given))),
            expected="one number of slots, or FLOOR:CEILING",
            hint=f"for example: kubeml task scale --id {job_id} 2:16",
        )
    return job_id


def _choice(status: JobStatus) -> str:
    """Return how N is chosen, and between which bounds."""
    spec = status.spec
    low = status.floor or (spec.parallelism if spec.static else spec.min_parallelism)
    high = status.ceiling or (spec.parallelism if spec.static else spec.max_parallelism)
    return f"{'static' if spec.static else spec.policy}, {low} to {high}"


def _accuracy(status: JobStatus) -> str:
    if status.end is not None and status.end.accuracy is not None:
        return f"{status.end.accuracy:.2f}"
    return output.number(status.last.accuracy if status.last else None)
