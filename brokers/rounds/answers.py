"""The answers that TAKE gives a participant: work, wait, or leave."""

from dataclasses import dataclass

from brokers.tensors.reference import TensorRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """TAKE's answer: train (or validate, or initialise) this slot of this round.

    Attributes:
        slot, rid, epoch, round_index: The work; ``rid`` is the round's uuid.
        version: Number of the weights to start from.
        weights: Reference to these weights; None before the first version.
        num_slots: N.
        attempt: How often the slot was begun in this round, from 1.
        is_copy: Whether another worker has been training the slot for long; the first to hand it
            in counts.
        optimizer: Reference to the slot's optimizer state; "" if there is none.
        local: Reference to what the slot contributed to the last merge, if it is to train on from
            that (``--overlap``) rather than from the merged weights; "" otherwise.
    """

    slot: int
    rid: str
    epoch: int
    round_index: int
    version: int
    weights: TensorRef | None
    num_slots: int
    attempt: int
    optimizer: str
    local: str = ""
    is_copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """TAKE's answer: there is nothing to do until the bell rings after this id.

    Attributes:
        bell: The id to wait after.
        is_complete: Whether every slot has contributed, and a parameter server is to merge them.
        due_ms: Ask again after this long even if the bell does not ring: by then a slot may
            count as slow, and may be copied. 0: no slot will soon.
    """

    bell: str
    is_complete: bool = False
    due_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """TAKE's answer: leave the job (``why``: doubled, surplus, yield, end, gone)."""

    why: str
