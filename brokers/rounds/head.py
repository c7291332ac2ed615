"""The head of a job's live state: one hash, ``kml:{JOB}:h``, and every field that it may have.

The scripts in ``lua/`` write most fields and decide by them; Python writes the first ones
(``Head.to_fields``) and reads. This is the only declaration: a test holds it against the scripts.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar, get_type_hints

from brokers.wire import as_text

T = TypeVar("T")


def _field(default: T, name: str = "", *, begins: bool = False) -> T:
    """A field of the head.

    Args:
        default: What it counts as when it is missing, empty or unreadable.
        name: Its name on Redis, if that is another one than the attribute's.
        begins: Whether Python writes it when a generation begins.
    """
    declared: Any = field(default=default, metadata={"name": name, "begins": begins})
    return declared  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A job's head. It is false if there is none: every head has a generation.

    Instants are milliseconds by the state server's clock. References are JSON texts, as
    ``TensorRef.to_json`` writes them.

    Attributes:
        gen: The job's generation: a number, compared as text.
        birth: A uuid of the call that built this generation.
        life: How often the job was resumed before this generation was built.
        state: The job's state, see ``kubeml.jobs.spec.State``; "" if there is no head.
        stop: Whether the job was asked to end.
        reason: Why it ended, for people.
        since: When the present state began.
        device: The device that its workers must have: ``cpu`` or ``gpu``.
        layout: Hash of the network's layout, if a checkpoint was restored. For people.
        overlap: Whether slots go on from their local weights (``--overlap``).
        hedge: Whether idle workers may train copies of slow slots.
        lease_ms: How long a slot's lease lasts.
        max_errors: This many errors of one slot in one round fail the job.
        max_lost: This many losses of one slot in one round fail the job.
        epoch: The epoch under way, or the last one; from 1, 0 before the first.
        round: The round under way, from 0.
        rounds: Rounds of the epoch.
        rid: The round's uuid; each change of stage or round makes a new one.
        opened: When the round was opened, with its fractions.
        slots: Slots N of the epoch.
        want: Slots of the round under way, which must be handed in.
        last_want: Slots of the epoch's last round.
        validation_slots: Slots of the validation after the epoch; 0 for none.
        decision: Why the scheduler chose this N, for people.
        expected_s: Seconds that the scheduler expected the epoch to take; None if unknown.
        planned_at: When the epoch was planned; None in a generation that has planned none.
        planning_ms: How long the plan had been due by then.
        trained_ms: How long the epoch's rounds took.
        version: Number of the merged weights.
        weights: Reference to the merged weights; "" before the first.
        outer_state: Reference to the outer optimizer's state that goes with them; "" for none.
        retries: Attempts of the epoch beyond each slot's first.
        failed: Number of the epoch's attempts that came to nothing.
        copies: Copies of slow slots that were begun.
        owner: Name of the parameter server that looks after the job; "" for none yet.
        owner_dl: Until when it does.
        scale: Number of the last change of scale; a change of a lower number comes too late.
        floor: The least that N may be.
        ceiling: The most that N may be.
        max_workers: The most participants at a time; 0 for no such cap.
        weight: The job's weight among those that share the pool.
        allot: How many workers the job is to have for now; None for any number.
        credit: What it was due and did not have, in worker-milliseconds.
        lean: Whether it is to have more than its share (1), less (-1), or just that (0).
        books_at: When these books were made; None if they never were.
        books_used_ms: ``used_ms`` at that time.
        used_ms: Worker-milliseconds that the job had up to ``used_at``.
        used_at: When its participants last changed; None if it had none.
        unreadable: Values that could not be read, for people. Not a field of the hash.
    """

    gen: str = _field("")
    birth: str = _field("")
    life: int = _field(0, begins=True)
    state: str = _field("", begins=True)
    stop: bool = _field(default=False)
    reason: str = _field("")
    since: float = _field(0.0)
    device: str = _field("cpu", begins=True)
    layout: str = _field("", begins=True)
    overlap: bool = _field(default=False, begins=True)
    hedge: bool = _field(default=False, begins=True)
    lease_ms: int = _field(0, begins=True)
    max_errors: int = _field(0, begins=True)
    max_lost: int = _field(0, begins=True)
    epoch: int = _field(0, begins=True)
    round: int = _field(0, begins=True)
    rounds: int = _field(0, begins=True)
    rid: str = _field("", begins=True)
    opened: float = _field(0.0)
    slots: int = _field(0, begins=True)
    want: int = _field(0, begins=True)
    last_want: int = _field(0)
    validation_slots: int = _field(0, "vslots")
    decision: str = _field("")
    expected_s: float | None = _field(None)
    planned_at: float | None = _field(None)
    planning_ms: int = _field(0)
    trained_ms: int = _field(0)
    version: int = _field(0, "ver", begins=True)
    weights: str = _field("", "w", begins=True)
    outer_state: str = _field("", "m", begins=True)
    retries: int = _field(0)
    failed: int = _field(0)
    copies: int = _field(0)
    owner: str = _field("")
    owner_dl: float = _field(0.0)
    scale: int = _field(0, begins=True)
    floor: int = _field(0, begins=True)
    ceiling: int = _field(0, begins=True)
    max_workers: int = _field(0, begins=True)
    weight: int = _field(1, begins=True)
    allot: int | None = _field(None)
    credit: int = _field(0)
    lean: int = _field(0)
    books_at: float | None = _field(None)
    books_used_ms: int = _field(0)
    used_ms: int = _field(0)
    used_at: float | None = _field(None)
    unreadable: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gen)

    @classmethod
    def from_fields(cls, raw: Mapping[bytes, bytes | None]) -> Self:
        """Read a head, or some fields of it, as the state server answers them.

        No value makes it raise: a number that cannot be read counts as missing, as it does for the
        scripts. So a job can be shown, stopped and ended whatever its head has become. Code that
        decides for the job must look at ``unreadable`` first.
        """
        read: dict[str, Any] = {}
        unreadable: tuple[str, ...] = ()
        for name, text in raw.items():
            # Fields of a later version are passed over.
            if text and name in _DECLARED:
                attribute, reader = _DECLARED[name]
                try:
                    read[attribute] = reader(text)
                except (ValueError, OverflowError):
                    unreadable += (f"{as_text(name)} is {as_text(text)[:80]!r}",)
        return cls(**read, unreadable=unreadable)

    def to_fields(self) -> dict[str, str]:
        """Return the fields that Python writes as a generation begins, as texts by Redis names."""
        return {
            name: _text(getattr(self, attribute)) for attribute, name in _names(begins=True).items()
        }

    @staticmethod
    def names(*attributes: str) -> tuple[bytes, ...]:
        """Return the Redis names of some fields, to read them alone."""
        every = _names()
        return tuple(every[attribute].encode() for attribute in attributes)


def _names(*, begins: bool = False) -> dict[str, str]:
    """Return attribute to Redis name: of all fields, or of those that a generation begins with."""
    return {
        one.name: one.metadata["name"] or one.name
        for one in fields(Head)
        if one.metadata and (one.metadata["begins"] or not begins)
    }


def _text(value: object) -> str:
    return str(int(value) if isinstance(value, bool) else value)


def _flag(text: bytes) -> bool:
    return text == b"1"


def _whole(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))


def _finite(text: bytes) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


#: How to read a field of each type; raises ValueError or OverflowError if it cannot be read.
_READERS: dict[Any, Callable[[bytes], object]] = {
    str: as_text,
    bool: _flag,
    int: _whole,
    int | None: _whole,
    float: _finite,
    float | None: _finite,
}

_TYPES = get_type_hints(Head)

#: Name on Redis to attribute and reader.
_DECLARED: dict[bytes, tuple[str, Callable[[bytes], object]]] = {
    name.encode(): (attribute, _READERS[_TYPES[attribute]]) for attribute, name in _names().items()
}
