"""A job's audit as tables, for ``kubeml task audit``."""

from typing import TYPE_CHECKING

from kubeml.cli import output

if TYPE_CHECKING:
    from kubeml.analysis.audit import EpochAudit, JobAudit

#: How many failed attempts are shown; ``--json`` has them all.
_SHOWN = 20


def show_audit(audit: "JobAudit") -> None:
    """Print how often rows counted, which worker trained what, what failed, and the verdict."""
    if not audit.epochs:
        output.say("no epoch is finished yet")
        return
    output.table(
        ("EPOCH", "GEN", "N", "ROUNDS", "ROWS", "0x", "1x", "2x+", "TRAINED BY", "FAILED ATTEMPTS"),
        [_cells(epoch) for epoch in audit.epochs],
        right=("EPOCH", "GEN", "N", "ROUNDS", "ROWS", "0x", "1x", "2x+"),
    )
    failed = [(epoch.epoch, attempt) for epoch in audit.epochs for attempt in epoch.failed]
    if failed:
        output.line("")
        output.table(
            ("EPOCH", "ROUND", "SLOT", "ATTEMPT", "WORKER", "HOW", "WHY"),
            [
                (
                    str(epoch),
                    str(a.round),
                    str(a.slot),
                    str(a.attempt),
                    a.worker or "-",
                    a.kind,
                    output.first_line(a.why),
                )
                for epoch, a in failed[:_SHOWN]
            ],
            right=("EPOCH", "ROUND", "SLOT", "ATTEMPT"),
        )
        if len(failed) > _SHOWN:
            output.say(f"… and {len(failed) - _SHOWN} more: --json")
    for generation in audit.generations[1:]:
        output.line(f"generation {generation['gen']}: {generation.get('why', '')}")
    output.line("")
    for fault in audit.all_faults:
        output.complain(fault)
    rows = sum(epoch.rows for epoch in audit.epochs)
    once = sum(epoch.counted_1 for epoch in audit.epochs)
    percent = 100 if once == rows else min(99.99, 100 * once / rows)
    output.line(f"{once:,} of {rows:,} rows counted 1x: {percent:g} %")


def _cells(epoch: "EpochAudit") -> tuple[str, ...]:
    by = ", ".join(f"{s.worker} {100 * s.rows / epoch.rows:.0f} %" for s in epoch.shares)
    return (
        str(epoch.epoch),
        str(epoch.gen),
        str(epoch.parallelism),
        str(epoch.rounds),
        str(epoch.rows),
        str(epoch.counted_0),
        str(epoch.counted_1),
        str(epoch.counted_more),
        by,
        str(len(epoch.failed) or "-"),
    )
