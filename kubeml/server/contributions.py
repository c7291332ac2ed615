"""Checks a contribution before its tensors are fetched, and makes its entry in the ledger."""

import json
from collections.abc import Sequence

from brokers.rounds.contribution import Contribution
from kubeml.errors import LayoutMismatch
from kubeml.jobs.results import finite_or_none
from kubeml.weights.layout import Layout


def require_layout(contribution: Contribution, layout: Layout, num_bytes: int) -> None:
    """Refuse a contribution of another network, or of another size than ``num_bytes``.

    Raises:
        LayoutMismatch: The contribution is of another network or size.
    """
    if contribution.layout != layout.hash:
        raise LayoutMismatch(
            slot=contribution.slot,
            tensor="(all)",
            expected=f"layout {layout.hash[:12]}",
            got=f"layout {contribution.layout[:12]}",
        )
    # Checked before a byte is fetched: a forged size must not make us allocate at will.
    if contribution.ref.num_bytes != num_bytes:
        raise LayoutMismatch(
            slot=contribution.slot,
            tensor="(all)",
            expected=f"{num_bytes} bytes",
            got=f"{contribution.ref.num_bytes} bytes",
        )


def ledger_entry(contributions: Sequence[Contribution]) -> str:
    """Return what a round merged, for the epoch's ledger."""
    return json.dumps(
        [
            {
                "slot": c.slot,
                "cid": c.cid,
                "token": c.token,
                "worker": c.worker,
                "attempt": c.attempt,
                "samples": c.num_samples,
                "steps": c.num_steps,
                "loss": finite_or_none(c.loss),
                "timings": {phase: finite_or_none(s) for phase, s in c.timings.items()},
            }
            for c in contributions
        ],
        separators=(",", ":"),
    )
