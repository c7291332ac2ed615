"""``kubeml up``, ``down``, ``status`` for the embedded stack, and ``doctor`` for any pool."""

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeml.cli import output
from kubeml.cli.options import AsJson, Quiet, SlotsPerGpu
from kubeml.cli.views.follow import many
from kubeml.errors import InvalidOption

if TYPE_CHECKING:
    from brokers.pool.node import Node
    from brokers.settings import Settings
    from kubeml.pool.demand import QueueDemand
    from kubeml.stack.stack import StackStatus

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
    min_workers: Annotated[
        int | None,
        typer.Option(
            "--min-workers",
            min=0,
            max=64,
            help="As many as jobs want, and no fewer than these. [default: 0 with --max-workers]",
        ),
    ] = None,
    max_workers: Annotated[
        int | None,
        typer.Option(
            "--max-workers",
            min=1,
            max=64,
            help="As many as jobs want, up to these. [default: as for --workers]",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="What the workers have: cpu or gpu. [default: cpu]")
    ] = "",
    slots_per_gpu: SlotsPerGpu = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=1024,
            max=65000,
            help="Serve Prometheus metrics on this port (parameter server), the next one (control "
            "worker) and those after it (workers). [default: nowhere]",
        ),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Start a whole stack on this machine: Valkey, S3, parameter server, scheduler, workers."""
    from brokers.settings import Settings
    from brokers.urls import mask_url
    from kubeml.machine import pinned_gpus
    from kubeml.stack import stack

    started_at = time.monotonic()
    settings = Settings.load(
        {
            "home": home,
            "device": device or None,
            "slots_per_gpu": slots_per_gpu,
            "metrics_port": metrics_port,
        }
    )
    _check_bounds(workers, min_workers, max_workers)
    gpus = pinned_gpus(
        settings,
        os.environ,
        workers=workers or max_workers or min_workers or None,
        option="--workers" if workers else "--max-workers" if max_workers else "--min-workers",
        slots_given=slots_per_gpu is not None,
    )
    low, high = _bounds(workers, min_workers, max_workers, len(gpus) or min(4, os.cpu_count() or 1))
    now, is_new = stack.up(settings, workers=low, max_workers=high, gpus=gpus)
    if as_json:
        output.as_json(now.to_wire())
    elif not quiet:
        took = f"up in {time.monotonic() - started_at:.1f} s" if is_new else "running already"
        output.say(f"kubeml is {took}: {many(now.size, 'worker')}, home {now.home}")
        asked = {workers, min_workers, max_workers} != {None}
        if not is_new and asked and (low, high) != (now.min_workers, now.max_workers):
            wanted = str(low) if low == high else f"{low} to {high}"
            output.warn(
                f"it has {many(now.size, 'worker')}, not {wanted}: kubeml down, then up again"
            )
        if not is_new and device and now.device != device:
            output.warn(f"its workers have a {now.device}: kubeml down, then up again")
        if not is_new and metrics_port not in {None, now.metrics_port}:
            output.warn(f"it serves {_metrics(now)}: kubeml down, then up again")
    elsewhere = mask_url(Settings.load({"home": home}).broker_url)
    if elsewhere != now.redis:
        output.warn(f"KUBEML_BROKER_URL or a kubeml.toml leads commands to {elsewhere} instead")


def _check_bounds(workers: int | None, low: int | None, high: int | None) -> None:
    """Refuse bounds that contradict each other."""
    if workers is not None and (low, high) != (None, None):
        raise InvalidOption(
            option="--workers",
            got=f"{workers}, beside --min-workers or --max-workers",
            expected="given alone",
            hint=f"--workers {workers} means --min-workers {workers} --max-workers {workers}",
        )
    if low is not None and high is not None and low > high:
        raise InvalidOption(
            option="--min-workers", got=str(low), expected=f"--max-workers ({high}) at most"
        )


def _bounds(workers: int | None, low: int | None, high: int | None, usual: int) -> tuple[int, int]:
    """Return how many workers there are to be at least and at most."""
    if (low, high) == (None, None):
        return workers or usual, workers or usual
    return low or 0, high or max(usual, low or 0)


def down(home: Home = None, quiet: Quiet = False) -> None:
    """Stop the stack. Datasets, functions, histories and checkpoints stay."""
    from brokers.settings import Settings, find_home
    from kubeml.stack import stack

    # Only the home is needed: a wrong setting or a damaged profile must not keep a stack running.
    was_there = stack.down(Settings(home=find_home(home)))
    if not quiet:
        output.say("kubeml is down" if was_there else "nothing was running")


def status(home: Home = None, as_json: AsJson = False) -> int:
    """Show the embedded stack's processes and what they have to do; exit 5 if it does not run."""
    from brokers.settings import Settings
    from kubeml.stack import stack

    settings = Settings.load({"home": home})
    now = stack.status(settings)
    demands, nodes = _pool(settings) if now.running else ([], [])
    if as_json:
        output.as_json(
            now.to_wire()
            | {"demand": [d.to_wire() for d in demands], "nodes": [asdict(n) for n in nodes]}
        )
    elif not now.running:
        output.say(f"no stack is running in {now.home}")
        output.hint("start it: kubeml up")
    else:
        output.fields(
            [
                ("home", now.home),
                ("redis", now.redis),
                ("s3", now.s3),
                ("workers", now.size),
                *([("metrics", _metrics(now))] if now.metrics_port else []),
            ]
        )
        output.line("")
        _show_processes(now, {node.name: node for node in nodes if node.role == "worker"})
        output.line("")
        output.table(
            ("QUEUE", "QUEUED", "RUNNING", "WANTED", "WORKERS"),
            [
                (d.queue, str(d.queued), str(d.running), str(d.wanted), str(d.workers))
                for d in demands
            ],
            right=("QUEUED", "RUNNING", "WANTED", "WORKERS"),
        )
    return 0 if now.running else 5


def _pool(settings: "Settings") -> "tuple[list[QueueDemand], list[Node]]":
    """Return the demand and the announced processes; nothing from a server that is silent."""
    from brokers.pool.presence import alive_nodes
    from kubeml.client.client import Client
    from kubeml.errors import BackendUnreachable

    try:
        with Client(settings) as client:
            return client.demand(), alive_nodes(client.backends.redis)
    except BackendUnreachable as err:
        output.warn(f"{err}: what the workers have to do is not known")
        return [], []


def _metrics(now: "StackStatus") -> str:
    from kubeml.stack.ports import ports_of

    ports = ports_of(now.metrics_port, now.max_workers)
    return f"metrics on ports {ports[0]} to {ports[-1]}" if ports else "no metrics"


def _show_processes(now: "StackStatus", workers: "Mapping[str, Node]") -> None:
    output.table(
        ("NAME", "ROLE", "DEVICE", "HAS", "PID", "STATE", "SINCE", "RESTARTS"),
        [
            (
                p.name,
                p.role,
                p.device or "-",
                _declared(workers.get(p.name)),
                str(p.pid or "-"),
                p.state,
                output.age(p.started_at),
                str(p.restarts),
            )
            for p in now.processes
        ],
        right=("PID", "RESTARTS"),
    )


def _declared(node: "Node | None") -> str:
    """Return what a worker declared, e.g. ``2 cores, 7.8 GiB``; a dash until it has done so."""
    if node is None or not node.cores:
        return "-"
    cores = f"{node.cores} {'core' if node.cores == 1 else 'cores'}"
    return ", ".join(filter(None, [node.gpu_name, cores, output.size(node.memory_bytes)]))


def doctor(home: Home = None, as_json: AsJson = False) -> int:
    """Check servers, versions and settings; exit 5 if something is wrong."""
    from brokers.settings import Settings
    from kubeml.ops.doctor import examine

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
