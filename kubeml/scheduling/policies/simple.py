"""Policies that look at little: keep N, and KubeML's rule of thumb. Pure."""

from kubeml.scheduling.policies.situation import Decision, Situation

#: Below (last epoch's time x this) KubeML scales up; above (x SCALE_DOWN) it scales down.
SCALE_UP_THRESHOLD = 1.05
SCALE_DOWN_THRESHOLD = 1.2


def static(now: Situation) -> Decision:
    """Keep the parallelism the user asked for; ``task scale`` alone changes it."""
    slots = now.clamp(now.current)
    if slots == now.current:
        return Decision(parallelism=slots, why="static")
    return Decision(
        parallelism=slots, why=f"static, scaled to {now.floor}:{now.ceiling} by the user"
    )


def throughput(now: Situation) -> Decision:
    """KubeML's policy: one more slot while epochs do not get slower, one fewer when they do.

    The last epoch's own time is compared with the epoch before it: up to 1.05 times as long
    scales up, 1.2 times or more scales down, anything between keeps N. Unlike the original it
    never leaves ``[floor, ceiling]`` and does not grow beyond the workers there are, where more
    slots could not run at the same time.

    Source: D. Albo Martínez, KubeML (TU Delft, 2021), throughput-based policy.
    """
    if not now.history:
        return Decision(parallelism=now.clamp(now.initial), why="first epoch")
    current = now.current
    if current != now.clamp(current):
        # Scaled by the user since; how long the epoch took is of no matter.
        return Decision(
            parallelism=now.clamp(current), why=f"N may be from {now.floor} to {now.ceiling}"
        )
    if len(now.history) == 1:
        return _grow(now, "no earlier epoch to compare with")
    before = now.history[-2].duration_s
    ratio = now.history[-1].duration_s / before if before > 0 else 1.0
    took = f"epoch took {ratio:.2f}x the one before"
    if ratio <= SCALE_UP_THRESHOLD:
        return _grow(now, took)
    if ratio >= SCALE_DOWN_THRESHOLD:
        if current <= now.floor:
            return Decision(parallelism=now.floor, why=f"{took}: kept at the floor of {now.floor}")
        return Decision(parallelism=current - 1, why=f"{took}: down")
    return Decision(parallelism=current, why=f"{took}: kept")


def _grow(now: Situation, why: str) -> Decision:
    if now.current >= now.ceiling:
        return Decision(parallelism=now.ceiling, why=f"{why}: kept at the ceiling of {now.ceiling}")
    if now.current >= now.pool.usable:
        return Decision(parallelism=now.current, why=f"{why}: kept, {now.pool}")
    return Decision(parallelism=now.current + 1, why=f"{why}: up")
