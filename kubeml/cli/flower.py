"""``kubeml flower``: become Flower on this pool's broker."""

from typing import Annotated

import typer

from kubeml.ops.flower import MAX_TASKS


def flower(
    host: Annotated[str, typer.Option("--host", help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Its port.")] = 5555,
    max_tasks: Annotated[
        int, typer.Option("--max-tasks", min=1, help="Tasks that it remembers.")
    ] = MAX_TASKS,
) -> None:
    """Become Flower on this pool's broker until SIGTERM: what tasks there were, who did them.

    It only looks. KUBEML_FLOWER_AUTH=USER:PASSWORD is what it asks for; without it, it binds
    loopback addresses alone and its API is closed. What it saw is kept in KUBEML_HOME/flower.
    """
    from brokers.settings import Settings
    from kubeml.ops.flower import exec_flower

    exec_flower(Settings.load(), host=host, port=port, max_tasks=max_tasks)
