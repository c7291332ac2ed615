"""The reference to a blob of tensors, which the job's head and contributions carry."""

import json
from dataclasses import asdict, dataclass
from typing import Self

from brokers.errors import MalformedMessage
from brokers.wire import from_wire, parse_object

#: The most that a peer may announce, so that a forged message cannot make us allocate at will.
MAX_TENSOR_BYTES = 64 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRef:
    """Where a blob of tensors lies on the state server.

    Attributes:
        key: The front part of its chunks' keys, which are ``{key}:{i}``.
        num_chunks: How many chunks there are.
        num_bytes: Length of the blob.
        crc: Checksum of the blob; see ``brokers.tensors.channel.checksum``.
    """

    key: str
    num_chunks: int
    num_bytes: int
    crc: int

    def __post_init__(self) -> None:
        if not self.key.startswith("kml:") or len(self.key) > 200:
            raise MalformedMessage(what="tensor reference", fault=f"key {self.key[:80]!r}")
        if type(self.num_bytes) is not int or not 0 <= self.num_bytes <= MAX_TENSOR_BYTES:
            raise MalformedMessage(what="tensor reference", fault=f"{self.num_bytes!r} bytes")
        if type(self.num_chunks) is not int or not 1 <= self.num_chunks <= 2**20:
            raise MalformedMessage(what="tensor reference", fault=f"{self.num_chunks!r} chunks")

    def chunk_keys(self) -> list[str]:
        """Return the keys of its chunks, in order."""
        return [f"{self.key}:{i}" for i in range(self.num_chunks)]

    def to_json(self) -> str:
        """Return the reference as text, as the job's head has it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a reference.

        Raises:
            MalformedMessage: The text is not a reference.
        """
        return from_wire(cls, parse_object(text, what="tensor reference"), what="tensor reference")
