"""How many workers each job of a shared pool is to have: weighted max-min fairness. Pure.

A job's *share* of the workers is a fraction: weighted max-min (progressive filling: Bertsekas and
Gallager, Data Networks, 1992, section 6.5.2), no more than the job can use. Workers are whole, so a
job has a bit more than its share or a bit less at a time, and its *credit* says which: what it was
due so far less what it had, in worker-milliseconds, as in deficit round robin (Shreedhar and
Varghese, SIGCOMM 1995). A share of a tenth is one worker for a tenth of the time. What a job lost
between two epochs, or had too much in a long round that cannot be interrupted, is made up for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: So much too much or too little is put right: a job's turn, in worker-milliseconds, about.
TURN_MS = 2000.0

#: So much is remembered of what a job was due and did not have, and of what it had too much.
_MAX_CREDIT_MS, _MAX_DEBT_MS = 10_000.0, 600_000.0

#: Shares this close to a whole number are one.
_EPSILON = 1e-6

#: Who has not looked for longer than this does not know what it was due meanwhile.
_MAX_ELAPSED_MS = 2000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job's claim to workers.

    Attributes:
        id: The job.
        weight: > 0; twice the weight, twice the workers.
        demand: Workers that it can use now.
        live: Workers that it has.
        tickets: Workers that it has asked for.
        credit_ms: What it was due and did not have (less than 0: had more), in worker-milliseconds.
        lean: Whether it is to have more than its share for now (1), less (-1), or just that (0).
        elapsed_ms: Time since these books were made.
        used_ms: What it had since, in worker-milliseconds. Not ``live`` times that: it may have had
            workers, or none, between two looks, and what is not booked is never put right.
    """

    id: str
    weight: float = 1.0
    demand: int
    live: int = 0
    tickets: int = 0
    credit_ms: float = 0.0
    lean: int = 0
    elapsed_ms: float = 0.0
    used_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """What a job is to have until it is looked at again.

    Attributes:
        most: Workers; None for as many as it can use.
        credit_ms, lean: The books, as in ``Claim``.
    """

    most: int | None
    credit_ms: float
    lean: int


def fair_shares(claims: Sequence[Claim], capacity: int) -> dict[str, float]:
    """Each job's share of ``capacity`` workers, by job id; none more than its demand."""
    shares = dict.fromkeys((claim.id for claim in claims), 0.0)
    open_claims = [claim for claim in claims if claim.demand > 0]
    left = float(capacity)
    while open_claims and left > 0:
        per_weight = left / sum(claim.weight for claim in open_claims)
        modest = [c for c in open_claims if c.demand <= c.weight * per_weight]
        if not modest:
            return shares | {c.id: c.weight * per_weight for c in open_claims}
        for claim in modest:
            shares[claim.id] = float(claim.demand)
            left -= claim.demand
        open_claims = [claim for claim in open_claims if claim not in modest]
    return shares


def allotment(claim: Claim, claims: Sequence[Claim], capacity: int) -> Allotment:
    """What a job is to have now.

    Args:
        claim: The job's.
        claims: Those of all jobs that want such workers, its own among them.
        capacity: Workers of its kind.
    """
    elapsed_ms = min(max(claim.elapsed_ms, 0.0), _MAX_ELAPSED_MS)
    used_ms = claim.used_ms * elapsed_ms / claim.elapsed_ms if elapsed_ms else 0.0
    if sum(c.demand for c in claims) <= capacity:
        # There is enough for all: old debts are forgotten as time goes by.
        kept = max(0.0, abs(claim.credit_ms) - elapsed_ms)
        return Allotment(most=None, credit_ms=math.copysign(kept, claim.credit_ms), lean=0)
    shares = fair_shares(claims, capacity)
    share = shares[claim.id]
    credit_ms = claim.credit_ms + share * elapsed_ms - used_ms
    credit_ms = min(max(credit_ms, -_MAX_DEBT_MS), _MAX_CREDIT_MS)
    # Whoever is due much more, and has not even its share, goes first.
    lacking = [c.credit_ms for c in claims if c.live < math.ceil(shares[c.id] - _EPSILON)]
    floor_ms = max(-TURN_MS, max(lacking, default=0.0) - 3 * TURN_MS)
    is_whole = abs(share - round(share)) < _EPSILON
    lean = _leaning(claim.lean, credit_ms, floor_ms, is_whole=is_whole)
    if capacity > sum(c.live + c.tickets for c in claims):
        lean = 1  # nobody else would have them
    most = {
        -1: math.ceil(share - _EPSILON) - 1,
        0: round(share),
        1: math.floor(share + _EPSILON) + 1,
    }
    return Allotment(most=max(0, most[lean]), credit_ms=credit_ms, lean=lean)


def _leaning(lean: int, credit_ms: float, floor_ms: float, *, is_whole: bool) -> int:
    """Where a job leans next; what is put right is put right until the job is even."""
    if credit_ms <= floor_ms or (lean < 0 and credit_ms < 0):
        return -1
    if not is_whole:
        return 1
    return int(credit_ms >= TURN_MS or (lean > 0 and credit_ms > 0))
