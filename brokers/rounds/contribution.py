"""The contribution of a slot, as a worker hands it in and the parameter server merges it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from brokers.errors import MalformedMessage
from brokers.tensors.reference import TensorRef
from brokers.wire import from_wire, parse_object


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What a slot hands in for one round.

    Attributes:
        cid: A uuid of this set of pushed chunks.
        token: The execution that held the slot's lease.
        slot: The slot.
        worker: Name of the worker, for people and the ledger.
        attempt: How often the slot was begun in this round, from 1.
        num_samples: Rows trained or validated, > 0; the weight in the merge.
        num_steps: Optimizer steps made.
        loss: Mean loss over those rows, by samples (may be NaN, as text "nan").
        accuracy: Mean accuracy; only for a validation.
        tensors: Reference to the contribution blob; "" for a validation.
        layout: Hash of the blob's layout.
        optimizer: Reference to the optimizer state that goes with it; "" if there is none.
        timings: Seconds of each phase: fetch, data, compute, push.
    """

    cid: str
    token: str
    slot: int
    worker: str
    attempt: int
    num_samples: int
    num_steps: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    tensors: str = ""
    layout: str = ""
    optimizer: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        texts = (self.tensors, self.layout, self.optimizer, self.cid, self.token)
        if not all(isinstance(text, str) for text in texts):
            raise MalformedMessage(what="contribution", fault=repr(self)[:200])
        if self.slot < 0 or self.num_samples <= 0 or self.num_steps < 0:
            raise MalformedMessage(what="contribution", fault=repr(self)[:200])

    @property
    def ref(self) -> TensorRef:
        """The reference to its tensors."""
        return TensorRef.from_json(self.tensors)

    def to_json(self) -> str:
        """Return the contribution as text, as the job's state has it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a contribution.

        Raises:
            MalformedMessage: It is not one; a field may be missing or unknown.
        """
        return from_wire(cls, parse_object(text, what="contribution"), what="contribution")
