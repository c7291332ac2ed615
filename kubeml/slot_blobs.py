"""Blobs of slots that a process made itself, so that it need not fetch them back."""

from brokers.protocol import TensorRef
from brokers.tensor_channel import TensorChannel

#: Blobs kept in memory: those of the last slots served.
_KEPT = 2


class SlotBlobs:
    """Slot to (reference, blob) of what was pushed last: optimizer states, or local weights."""

    def __init__(self) -> None:
        self._blobs: dict[int, tuple[str, bytes | bytearray]] = {}

    def keep(self, slot: int, reference: str, blob: bytes | bytearray) -> None:
        """Remember a blob that was just pushed; it may not be changed any more."""
        self._blobs.pop(slot, None)
        self._blobs[slot] = (reference, blob)
        while len(self._blobs) > _KEPT:
            del self._blobs[next(iter(self._blobs))]

    def get(self, slot: int, reference: str, channel: TensorChannel) -> bytes | bytearray:
        """The blob: from memory if this process made it, else from the state server.

        Raises:
            ChunksMissing, Corrupted: It is not there, or not what the reference says.
        """
        made = self._blobs.get(slot)
        if made is not None and made[0] == reference:
            return made[1]
        return channel.pull(TensorRef.from_json(reference))
