"""Values that cross a process border: frozen, strict, JSON on the wire."""

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
        cid: A uuid for this set of pushed chunks.
        token: The execution that held the slot's lease.
        slot: The slot.
        worker: Name of the worker, for people and the ledger.
        attempt: How often the slot was begun in this round, from 1.
        num_samples: Rows trained or validated, > 0; the weight in the merge.
        num_steps: Optimizer steps made.
        loss: Mean loss over those rows, by samples (may be NaN, as text "nan").
        accuracy: Mean accuracy; validation alone.
        tensors: Where the contribution blob lies; "" for a validation.
        layout: Hash of the layout it has.
        optimizer: Reference to the optimizer state that goes with it; "" if none.
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
        """Where its tensors lie."""
        return TensorRef.from_json(self.tensors)

    def to_json(self) -> str:
        """The contribution as text, as it stands in the job's state."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a contribution; refuse missing and unknown fields alike.

        Raises:
            MalformedMessage: It is not one.
        """
        return from_wire(cls, parse_object(text, what="contribution"), what="contribution")
