"""How many workers each job of a shared pool is to have: weighted max-min fairness. Pure.

A job's *share* of the workers is a fraction by weighted max-min (progressive filling: Bertsekas and
Gallager, Data Networks, 1992, section 6.5.2), and no more than the job can use. Workers are whole,
so at any time a job has a bit more or a bit less than its share. Its *credit* says which: the
workers it was due so far less those it had, in worker-milliseconds, as in deficit round robin
(Shreedhar and Varghese, SIGCOMM 1995). A share of a tenth is one worker for a tenth of the time.
A job may lose time between two epochs, or have too much in a long round that cannot be interrupted:
both are made up for later.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: A job's turn, about: a credit or debt of this many worker-milliseconds is put right.
TURN_MS = 2000.0

#: The most that is remembered of what a job was due and did not have, and of what it had too much.
_MAX_CREDIT_MS, _MAX_DEBT_MS = 10_000.0, 600_000.0

#: A share this close to a whole number counts as that number.
_EPSILON = 1e-6

#: A job that has not looked for longer than this does not know what it was due meanwhile.
_MAX_ELAPSED_MS = 2000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job's claim to workers.

    Attributes:
        id: The job.
        weight: > 0; twice the weight, twice the workers.
        demand: How many workers it can use now.
        live: How many workers it has.
        tickets: How many workers it has asked for.
        credit_ms: What it was due and did not have, in worker-milliseconds; below 0 if it had more.
        lean: Whether it is to have more than its share for now (1), less (-1), or just that (0).
        elapsed_ms: Time since these books were made.
        used_ms: The worker-milliseconds it had since then. That is not ``live`` times
            ``elapsed_ms``: workers may have come and gone between two looks, and time that is not
            booked is never put right.
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
        most: How many workers it may have; None: as many as it can use.
        credit_ms, lean: Its new books, as in ``Claim``.
    """

    most: int | None
    credit_ms: float
    lean: int


def fair_shares(claims: Sequence[Claim], capacity: int) -> dict[str, float]:
    """Return each job's share of ``capacity`` workers, by job id; none exceeds its demand."""
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
    """Return what a job is to have now.

    Args:
        claim: The job's claim.
        claims: The claims of all jobs that want such workers, its own among them.
        capacity: How many workers of that kind there are.
    """
    elapsed_ms = min(max(claim.elapsed_ms, 0.0), _MAX_ELAPSED_MS)
    used_ms = claim.used_ms * elapsed_ms / claim.elapsed_ms if elapsed_ms else 0.0
    if sum(c.demand for c in claims) <= capacity:
        # There are enough workers for all: old debts are forgotten as time goes by.
        kept = max(0.0, abs(claim.credit_ms) - elapsed_ms)
        return Allotment(most=None, credit_ms=math.copysign(kept, claim.credit_ms), lean=0)
    shares = fair_shares(claims, capacity)
    share = shares[claim.id]
    credit_ms = claim.credit_ms + share * elapsed_ms - used_ms
    credit_ms = min(max(credit_ms, -_MAX_DEBT_MS), _MAX_CREDIT_MS)
    # A job that is due much more than this one, and has not even its share, goes first.
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
    """Return where a job leans next; once it leans, it does so until its credit is even."""
    if credit_ms <= floor_ms or (lean < 0 and credit_ms < 0):
        return -1
    if not is_whole:
        return 1
    return int(credit_ms >= TURN_MS or (lean > 0 and credit_ms > 0))
