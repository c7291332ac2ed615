"""Which port each process of one machine serves its metrics on. Pure."""


def port_of(first: int, role: str, number: int = 1) -> int:
    """The port of a process of the embedded stack.

    Args:
        first: The stack's ``metrics_port``; 0: nobody serves metrics.
        role: ``ps``, ``control`` or ``worker``.
        number: Of a worker, from 1.

    Returns:
        The first one for the parameter server, the next for the control worker, then the workers.
    """
    if not first:
        return 0
    return {"ps": first, "control": first + 1}.get(role, first + 1 + number)


def ports_of(first: int, workers: int) -> list[int]:
    """All ports of a stack with so many workers."""
    if not first:
        return []
    return [port_of(first, role) for role in ("ps", "control")] + [
        port_of(first, "worker", number) for number in range(1, workers + 1)
    ]
