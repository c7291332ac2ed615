"""``kubeml chaos``: kill processes of the embedded stack at random while it trains."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, Quiet
from kubeml.cli.views.follow import many

if TYPE_CHECKING:
    from kubeml.ops.chaos.report import ChaosReport, JobRun

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def chaos(
    function: Annotated[str, typer.Option("--function", "-f", help="Function to train.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Dataset to train it on.")],
    kill: Annotated[
        str, typer.Option("--kill", help="What to kill, by commas.")
    ] = "worker,ps,control,broker,s3",
    every: Annotated[str, typer.Option("--every", help="Time between two kills.")] = "10s",
    for_: Annotated[str, typer.Option("--for", help="How long.")] = "5m",
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="Epochs of each job.")] = 3,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Rows per step.")] = 64,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.")] = 0.01,
    parallelism: Annotated[int, typer.Option("--parallelism", "-p", help="Slots.")] = 2,
    k: Annotated[int, typer.Option("--K", help="Steps between two merges.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Fixes the jobs and what is killed.")] = 0,
    png: Annotated[
        Path | None, typer.Option("--png", help="Picture of loss and throughput.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Train again and again while processes of the embedded stack are killed at random.

    Reports how fast it recovered from each kind of kill, and whether every row counted once and
    the weights are those of an undisturbed run. Exit code 1 if not.
    """
    from brokers.settings import Settings
    from kubeml.errors import InvalidOption
    from kubeml.ops.chaos.run import ROLES, ChaosPlan, run_chaos

    kinds = [kind.strip() for kind in kill.split(",") if kind.strip()]
    if not kinds or set(kinds) - set(ROLES):
        raise InvalidOption(option="--kill", got=kill, expected="some of " + ",".join(ROLES))
    plan = ChaosPlan(
        function=function,
        dataset=dataset,
        kinds=kinds,
        seed=seed,
        every_s=_seconds("--every", every),
        for_s=_seconds("--for", for_),
        options={
            "epochs": epochs,
            "batch_size": batch,
            "lr": lr,
            "parallelism": parallelism,
            "k": k,
            "seed": seed,
            "static": True,
            "optimizer_state": "carry",
        },
    )
    report = run_chaos(Settings.load(), plan, _silence if quiet else output.say)
    if png is not None or not as_json:
        from kubeml.ops.chaos.plot import plot

        plot(report, png or Path("chaos.png"))
    if as_json:
        output.as_json(report.to_wire())
    else:
        _show(report)
    return 1 if report.faults else 0


def _show(report: "ChaosReport") -> None:
    output.table(
        ("KILLED", "TIMES", "RECOVERY MEDIAN", "P95", "MAX", "COST MEDIAN"),
        [
            (s.kind, str(s.kills), _s(s.median_s), _s(s.p95_s), _s(s.max_s), _s(s.cost_s))
            for s in report.summaries()
        ],
        right=("TIMES", "RECOVERY MEDIAN", "P95", "MAX", "COST MEDIAN"),
    )
    output.line("")
    output.table(
        (
            "JOB",
            "STATE",
            "ACCURACY",
            "SECONDS",
            "SLOTS REDONE",
            "ROUNDS REDONE",
            "GENERATIONS",
            "AUDIT",
            "WEIGHTS",
        ),
        [_cells(report, run) for run in (report.calm, *report.runs)],
        right=("ACCURACY", "SECONDS", "SLOTS REDONE", "ROUNDS REDONE", "GENERATIONS"),
    )
    output.line("")
    gap = report.accuracy_gap
    output.line(
        f"{many(len(report.kills), 'kill')}, {many(len(report.runs), 'job')}; "
        f"{'every row counted 1x' if not report.faults else 'NOT every row counted 1x'}; "
        f"accuracy within {'-' if gap is None else f'{gap:.2f}'} points of the undisturbed run"
    )
    for fault in report.faults:
        output.complain(fault)


def _cells(report: "ChaosReport", run: "JobRun") -> tuple[str, ...]:
    if run is report.calm:
        bits = "undisturbed"
    else:
        bits = "same bits" if run.weights_sha256 == report.calm.weights_sha256 else "OTHER BITS"
    return (
        run.job_id,
        run.state,
        output.number(run.accuracy),
        f"{run.elapsed_s:.1f}",
        str(run.slots_redone),
        str(run.rounds_redone),
        str(run.generations),
        "FAULTY" if run.faults else "1x",
        bits,
    )


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _seconds(option: str, text: str) -> float:
    """Return the seconds in ``10s``, ``5m``, ``1h`` or a plain number.

    Raises:
        InvalidOption: The text is none of those, or zero.
    """
    from kubeml.errors import InvalidOption

    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smh]?)", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise InvalidOption(option=option, got=repr(text), expected="a time such as 10s, 5m or 1h")
    return seconds


def _silence(_text: str) -> None:
    """Say nothing."""
