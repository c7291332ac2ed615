"""``kubeml up``, ``down``, ``status``, ``doctor``: the embedded stack, and a look at any stack."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, Quiet, SlotsPerGpu

Home = Annotated[
    Path | None, typer.Option("--home", help="Its directory. [default: $KUBEML_HOME or ~/.kubeml]")
]
_PANEL = "The stack"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("up", rich_help_panel=_PANEL)(up)
    app.command("down", rich_help_panel=_PANEL)(down)
    app.command("status", rich_help_panel=_PANEL)(status)
    app.command("doctor", rich_help_panel=_PANEL)(doctor)


def up(
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-w",
            min=1,
            max=64,
            help="Training workers. [default: cores, 4 at most; on GPUs: one for each slot]",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="What the workers have: cpu or gpu. [default: cpu]")
    ] = "",
    slots_per_gpu: SlotsPerGpu = None,
    home: Home = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Start a whole stack on this machine: Valkey, S3, parameter server, scheduler, workers."""
    from brokers.settings import Settings, mask_url
    from kubeml import stack
    from kubeml.gpus import pinned_gpus

    started_at = time.monotonic()
    settings = Settings.load(
        {"home": home, "device": device or None, "slots_per_gpu": slots_per_gpu}
    )
    gpus = pinned_gpus(settings, os.environ, workers=workers, slots_given=slots_per_gpu is not None)
    count = len(gpus) or workers or min(4, os.cpu_count() or 1)
    now, is_new = stack.up(settings, workers=count, gpus=gpus)
    if as_json:
        output.as_json(now.to_wire())
    elif not quiet:
        took = f"up in {time.monotonic() - started_at:.1f} s" if is_new else "running already"
        output.say(f"kubeml is {took}: {now.workers} workers, home {now.home}")
        if not is_new and workers and workers != now.workers:
            output.warn(f"it has {now.workers} workers, not {workers}: kubeml down, then up again")
        if not is_new and device and now.device != device:
            output.warn(f"its workers have a {now.device}: kubeml down, then up again")
    elsewhere = mask_url(Settings.load({"home": home}).broker_url)
    if elsewhere != now.redis:
        output.warn(f"KUBEML_BROKER_URL or a kubeml.toml leads commands to {elsewhere} instead")


def down(home: Home = None, quiet: Quiet = False) -> None:
    """Stop the stack. Datasets, functions, histories and checkpoints stay."""
    from brokers.settings import Settings
    from kubeml import stack

    was_there = stack.down(Settings.load({"home": home}))
    if not quiet:
        output.say("kubeml is down" if was_there else "nothing was running")


def status(home: Home = None, as_json: AsJson = False) -> int:
    """Show the embedded stack's processes; exit 5 if it is not running."""
    from brokers.settings import Settings
    from kubeml import stack

    now = stack.status(Settings.load({"home": home}))
    if as_json:
        output.as_json(now.to_wire())
    elif not now.running:
        output.say(f"no stack is running in {now.home}")
        output.hint("start it: kubeml up")
    else:
        output.fields([("home", now.home), ("redis", now.redis), ("s3", now.s3)])
        output.line("")
        output.table(
            ("NAME", "ROLE", "DEVICE", "PID", "STATE", "SINCE", "RESTARTS"),
            [
                (
                    p.name,
                    p.role,
                    p.device or "-",
                    str(p.pid or "-"),
                    p.state,
                    output.age(p.started_at),
                    str(p.restarts),
                )
                for p in now.processes
            ],
            right=("PID", "RESTARTS"),
        )
    return 0 if now.running else 5


def doctor(home: Home = None, as_json: AsJson = False) -> int:
    """Check servers, versions and settings; exit 5 if something is wrong."""
    from brokers.settings import Settings
    from kubeml.doctor import examine

    findings = examine(Settings.load({"home": home}))
    if as_json:
        output.as_json([finding.to_wire() for finding in findings])
    else:
        marks = {"ok": "ok", "warning": "WARNING", "bad": "BAD"}
        output.table(("CHECK", "", "FOUND"), [(f.check, marks[f.level], f.found) for f in findings])
        for finding in findings:
            if finding.hint and finding.level != "ok":
                output.hint(f"{finding.check}: {finding.hint}")
    return 5 if any(finding.level == "bad" for finding in findings) else 0
