"""``kubeml worker``, ``ps``, ``control``: become one of the pool's processes."""

from typing import Annotated

import typer

from kubeml.cli.options import SlotsPerGpu

Name = Annotated[str, typer.Option("--name", help="Name of this process, unique in the pool.")]
PANEL = "Processes of a pool (kubeml up starts them)"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("worker", rich_help_panel=PANEL)(worker)
    app.command("control", rich_help_panel=PANEL)(control)
    app.command("ps", rich_help_panel=PANEL)(ps)


def worker(
    name: Name = "",
    device: Annotated[str, typer.Option("--device", help="What it has: cpu or gpu.")] = "",
    slots_per_gpu: SlotsPerGpu = None,
) -> None:
    """Become a training worker until SIGTERM: one process, or one for each slot of each GPU."""
    from brokers.settings import Settings
    from kubeml.stack.roles import exec_worker

    settings = Settings.load({"device": device or None, "slots_per_gpu": slots_per_gpu})
    exec_worker(settings, name=name, slots_given=slots_per_gpu is not None)


def control(name: Name = "") -> None:
    """Become a control worker, which runs the scheduler's tasks, until SIGTERM."""
    from brokers.settings import Settings
    from kubeml.stack.roles import exec_control

    exec_control(Settings.load(), name=name)


def ps() -> None:
    """Become a parameter server, which merges, validates and records, until SIGTERM."""
    from brokers.settings import Settings
    from kubeml import logs
    from kubeml.server.server import main

    settings = Settings.load()
    logs.set_up(settings)
    main(settings)
