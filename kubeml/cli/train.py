"""``kubeml train``: submit a training job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from kubeml.cli import output
from kubeml.cli.follow import follow_job
from kubeml.cli.options import AsJson, Quiet, connect
from kubeml.errors import Interrupted, InvalidOption


def train(
    function: Annotated[str, typer.Option("--function", "-f", help="Function to train.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Dataset to train it on.")],
    epochs: Annotated[
        int, typer.Option("--epochs", "-e", help="Passes over the training set.")
    ] = 1,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Rows per step.")] = 64,
    lr: Annotated[
        float, typer.Option("--lr", help="Learning rate, self.lr in the function.")
    ] = 0.01,
    parallelism: Annotated[
        str,
        typer.Option(
            "--parallelism",
            "-p",
            metavar="N|FLOOR:CEILING",
            help="Slots: 4 to begin with (with --static: always), or 2:8, beginning with 2.",
        ),
    ] = "2",
    max_parallelism: Annotated[
        int | None, typer.Option("--max-parallelism", help="Ceiling of slots.  [default: 16]")
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="Keep the slots as they are.")] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy", help="What else chooses the slots of an epoch: efficiency or throughput."
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", help="End in this time, if possible: 90s, 30m, 2h."),
    ] = None,
    max_workers: Annotated[
        int, typer.Option("--max-workers", help="Workers to use at a time; 0: any number.")
    ] = 0,
    priority: Annotated[
        int, typer.Option("--priority", help="Weight where jobs share workers: 2 gets twice 1.")
    ] = 1,
    hedge: Annotated[
        bool,
        typer.Option("--hedge/--no-hedge", help="Let idle workers train copies of slow slots."),
    ] = True,
    k: Annotated[
        int, typer.Option("--K", help="Steps between two merges; -1: once per epoch.")
    ] = -1,
    sparse_avg: Annotated[
        bool, typer.Option("--sparse-avg", help="Merge once per epoch: --K -1.")
    ] = False,
    validate_every: Annotated[
        int, typer.Option("--validate-every", help="Epochs between validations; 0: the last.")
    ] = 1,
    goal_accuracy: Annotated[
        float, typer.Option("--goal-accuracy", help="End when a validation reaches it (percent).")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", help="Fixes weights, shuffling and augmentation.")
    ] = 0,
    shuffle: Annotated[
        bool, typer.Option("--shuffle/--no-shuffle", help="Shuffle rows each epoch.")
    ] = True,
    optimizer_state: Annotated[
        str, typer.Option("--optimizer-state", help="Between rounds: reset, local or carry.")
    ] = "reset",
    outer: Annotated[
        str, typer.Option("--outer", help="Outer optimizer: mean, nesterov or slowmo.")
    ] = "mean",
    outer_lr: Annotated[float, typer.Option("--outer-lr", help="Its learning rate.")] = 1.0,
    outer_momentum: Annotated[float, typer.Option("--outer-momentum", help="Its momentum.")] = 0.0,
    wire: Annotated[
        str,
        typer.Option("--wire", help="Contributions: fp32, or bf16 differences of half the bytes."),
    ] = "fp32",
    overlap: Annotated[
        bool, typer.Option("--overlap", help="Train on while a merge is under way.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="Workers to train on: cpu or gpu.")
    ] = "cpu",
    max_errors: Annotated[
        int, typer.Option("--max-errors", help="Failures of a slot before the job fails.")
    ] = 3,
    job_id: Annotated[
        str | None, typer.Option("--id", help="An id of your own; it can be used once.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show the training until it ends.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Submit a training job and print its id; with --follow, show it until it ends."""
    from kubeml.client.client import new_job_id

    if sparse_avg and k != -1:
        raise InvalidOption(
            option="--sparse-avg", got=f"given with --K {k}", expected="one of the two",
            hint="--sparse-avg means --K -1",
        )  # fmt: skip
    if static and policy is not None:
        raise InvalidOption(
            option="--static", got=f"given with --policy {policy}", expected="one of the two"
        )
    # The id is known before the submission: Ctrl-C must not leave a job of unknown id behind.
    job_id = new_job_id() if job_id is None else job_id
    with connect() as client:
        with _tells_of(job_id):
            job = client.train(
                function, dataset, epochs=epochs, batch_size=batch, lr=lr, parallelism=parallelism,
                max_parallelism=max_parallelism, static=static, deadline=deadline,
                policy=policy or "efficiency", max_workers=max_workers, priority=priority,
                hedge=hedge, k=k,
                validate_every=validate_every, goal_accuracy=goal_accuracy, seed=seed,
                shuffle=shuffle, optimizer_state=optimizer_state, outer=outer, outer_lr=outer_lr,
                outer_momentum=outer_momentum, wire=wire, overlap=overlap, device=device,
                max_errors=max_errors, job_id=job_id,
            )  # fmt: skip
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
