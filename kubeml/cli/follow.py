"""Follow a job to its end, for ``--follow`` and ``task watch``: bars on a terminal, else lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubeml.cli import output
from kubeml.cli.views.follow import JobView, duration, many
from kubeml.errors import Interrupted
from kubeml.jobs.spec import State

if TYPE_CHECKING:
    from kubeml.client.job import Job

#: The exit code for each way a job can end.
_EXIT = {State.DONE: 0, State.FAILED: 1, State.STOPPED: 7}


def follow_job(job: "Job", *, quiet: bool = False) -> int:
    """Show a job until it ends, and return the exit code for its end.

    Raises:
        Interrupted: Ctrl-C; the job goes on.
    """
    view = JobView(epochs=job.spec.epochs)
    shown = _silence() if quiet else (_bars(view) if output.stderr_is_live() else _lines())
    try:
        with shown as show:
            show(view.wait_for(job.why_pending()))
            for batch in job.event_batches():
                for event in batch:
                    show(view.apply(event.kind, event.at, event.fields))
                # A second without news may mean that no worker can serve the job.
                show(view.wait_for("" if batch else job.why_pending()))
    except KeyboardInterrupt as err:
        raise Interrupted(
            what=f"detached; job {job.id} goes on",
            hint=f"return with: kubeml task watch --id {job.id}",
        ) from err
    return _tell_end(job, quiet=quiet)


def _tell_end(job: "Job", *, quiet: bool) -> int:
    end = job.result()
    if end.state is State.FAILED:
        from kubeml.errors import JobFailed

        raise JobFailed(
            job_id=job.id, reason=end.reason, hint=f"its log lines: kubeml logs --id {job.id}"
        )
    if not quiet:
        parts = [
            f"job {job.id}: {end.state}",
            f"{many(end.epoch, 'epoch')} in {duration(end.elapsed_s)}",
        ]
        if end.accuracy is not None:
            parts.append(f"accuracy {end.accuracy:.2f} %")
        if end.reason:
            parts.append(end.reason)
        output.say(", ".join(parts))
    return _EXIT[end.state]


@contextmanager
def _silence() -> Iterator[Callable[[str], None]]:
    yield lambda _text: None


@contextmanager
def _lines() -> Iterator[Callable[[str], None]]:
    def show(text: str) -> None:
        if text:
            output.say(text)

    yield show


@contextmanager
def _bars(view: JobView) -> Iterator[Callable[[str], None]]:
    """Draw two bars below the lines, one for epochs and one for rounds."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:<7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        epochs = progress.add_task("epochs", total=view.epochs, facts="")
        rounds = progress.add_task("rounds", total=None, facts="waiting for a worker")

        def show(text: str) -> None:
            if text:
                progress.console.print(escape(text), highlight=False)
            if view.pending or not view.epoch:
                facts = f"PENDING: {view.pending}" if view.pending else "waiting for a worker"
                progress.update(rounds, facts=facts)
                return
            finished = view.epoch - (0 if view.round == view.rounds else 1)
            accuracy = f"accuracy {view.accuracy:.2f} %" if view.accuracy is not None else ""
            progress.update(epochs, total=view.epochs, completed=finished, facts=accuracy)
            loss = f"loss {view.loss:.4f}" if view.loss is not None else ""
            facts = (
                f"{view.samples_per_s:,.0f} samples/s  {loss}  "
                f"{many(view.workers, 'worker')}  ETA {duration(view.eta_s)}"
            )
            progress.update(rounds, total=view.rounds, completed=view.round, facts=facts)

        yield show
