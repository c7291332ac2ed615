"""What held a job up, and the setting that would help; ``explain`` asks it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from kubeml.jobs.spec import JobSpec

#: A phase that takes less than this share of the time is not worth changing a setting.
WORTH_NAMING = 0.1


@dataclass(frozen=True, kw_only=True)
class Holdup:
    """One thing that took time.

    Attributes:
        phase: A phase of the rounds, or ``planning``, ``validation``, ``record``.
        share: Its part of the time, from 0 to 1.
        why: What happens there, for people.
        setting: The flag or method to change; "" if there is none.
        remedy: What to change, for people.
    """

    phase: str
    share: float
    why: str
    setting: str
    remedy: str


#: Phase to (why, setting, remedy); the text for ``larger_k`` depends on K.
_TEXTS: Mapping[str, tuple[str, str, str]] = {
    "failed": (
        "slots were trained again: a worker was lost, or an attempt failed",
        "",
        "see why: kubeml task audit --id {job}",
    ),
    "fetch": (
        "every round begins with fetching weights and reading rows",
        "--K",
        "{larger_k}",
    ),
    "data": (
        "batches are built before they can be trained on",
        "__getitems__",
        "give the dataset __getitems__(indices), or leave __getitem__ alone and convert whole "
        "batches in train()",
    ),
    "compute": (
        "the function's train() runs: this is what the time is for",
        "--parallelism",
        "more slots, with as many workers, train more rows at once",
    ),
    "push": (
        "every round ends with packing and pushing the slot's tensors",
        "--K",
        "{larger_k}",
    ),
    "other": (
        "workers load the function, set it up and talk to the state server",
        "--K",
        "in a first round, a new worker loads the function, once; else {larger_k}",
    ),
    "wait": (
        "slots that are done wait for slower ones: the workers are uneven",
        "--parallelism",
        "even workers; or more slots than workers, or fewer, so that fast workers serve more",
    ),
    "merge": (
        "the parameter server merges and commits the round",
        "--K",
        "{larger_k}",
    ),
    "planning": (
        "the scheduler plans the next epoch",
        "",
        "look whether its control worker is busy or away: kubeml status",
    ),
    "validation": (
        "the weights are validated between epochs",
        "--validate-every",
        "validate less often: a larger --validate-every (now {validate_every})",
    ),
    "record": (
        "checkpoint, history row and ledger are written to S3",
        "",
        "a faster S3, or fewer and longer epochs; kubeml doctor looks at S3",
    ),
}
_QUEUE_SHORT = (
    "slots wait for workers ({workers:.1f} serve {slots:.1f} slots), and those done for them",
    "workers",
    "more workers; or --parallelism no larger than their number, which is another training",
)
_QUEUE_LATE = (
    "there are as many workers as slots, and they come late: rounds are short, or other jobs "
    "have the workers",
    "workers",
    "more workers if jobs share them; else {larger_k}",
)


def holdups(
    spec: JobSpec, costs: Mapping[str, float], *, workers: float, slots: float
) -> list[Holdup]:
    """Return what took the time, longest first: the bottleneck, and others worth a setting.

    Args:
        spec: The job's spec, which has the present settings.
        costs: Phase to its seconds. If there were fewer workers than slots, the time that
            finished slots wait belongs to ``queue``: they wait for slots that no worker has yet.
        workers: Mean number of workers in a round.
        slots: Mean number of slots in a round.

    Returns:
        The holdups, the bottleneck first; empty if no time is known. Computing is listed only if
        it is the bottleneck.
    """
    total = sum(costs.values())
    if total <= 0:
        return []
    ordered = sorted(costs, key=lambda phase: -costs[phase])
    worth = [
        phase
        for phase in ordered[1:]
        if phase != "compute" and costs[phase] / total >= WORTH_NAMING
    ]
    values = {
        "job": spec.id,
        "workers": workers,
        "slots": slots,
        "larger_k": _larger_k(spec),
        "validate_every": spec.validate_every,
    }
    found = []
    for phase in [ordered[0], *worth]:
        why, setting, remedy = _texts(phase, is_short=workers < slots)
        found.append(
            Holdup(
                phase=phase,
                share=costs[phase] / total,
                why=why.format(**values),
                setting="--parallelism" if setting == "--K" and spec.k == -1 else setting,
                remedy=remedy.format(**values),
            )
        )
    return found


def _texts(phase: str, *, is_short: bool) -> tuple[str, str, str]:
    if phase == "queue":
        return _QUEUE_SHORT if is_short else _QUEUE_LATE
    return _TEXTS[phase]


def _larger_k(spec: JobSpec) -> str:
    if spec.k == -1:
        return "fewer slots (--parallelism): there is one merge per epoch already"
    return f"a larger --K (now {spec.k}): fewer rounds, each of more steps"
