"""Which port each process of one machine serves its metrics on. Pure."""


def port_of(first: int, role: str, number: int = 1) -> int:
    """Return the port of a process of the embedded stack.

    Args:
        first: The stack's ``metrics_port``; 0: no process serves metrics.
        role: ``ps``, ``control`` or ``worker``.
        number: Which worker, from 1.

    Returns:
        The first port for the parameter server, the next for the control worker, and those after
        it for the workers.
    """
    if not first:
        return 0
    return {"ps": first, "control": first + 1}.get(role, first + 1 + number)


def ports_of(first: int, workers: int) -> list[int]:
    """Return all ports of a stack with this many workers."""
    if not first:
        return []
    return [port_of(first, role) for role in ("ps", "control")] + [
        port_of(first, "worker", number) for number in range(1, workers + 1)
    ]
