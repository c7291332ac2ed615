"""Blobs of tensors through the state server: chunks of 1 MiB, pipelined, checksummed, expiring.

Chunks beat one large value four times over, and stay far below Redis' 512 MB limit.
"""

import zlib
from typing import TYPE_CHECKING, Any

from brokers import fail_points
from brokers.errors import ChunksMissing, Corrupted, redis_errors
from brokers.protocol import TensorRef

if TYPE_CHECKING:
    from redis import Redis

CHUNK_BYTES = 2**20

#: Chunks in one pipeline: bounds the memory that replies in flight take.
_PIPELINE = 16

#: An orphan (a dead worker's push, a superseded merge) is gone after this long.
TTL_S = 900

Buffer = bytes | bytearray | memoryview


class TensorChannel:
    """Push and pull blobs."""

    def __init__(self, client: "Redis", *, where: str = "the state server") -> None:
        self._client = client
        self._where = where

    def push(self, key: str, blob: Buffer, *, ttl_s: int = TTL_S) -> TensorRef:
        """Store a blob under a key that was never used before.

        Returns:
            The reference by which ``pull`` finds it.
        """
        view = memoryview(blob).cast("B")
        ref = TensorRef(
            key=key,
            num_chunks=max(1, -(-len(view) // CHUNK_BYTES)),
            num_bytes=len(view),
            crc=zlib.crc32(view),
        )
        with redis_errors(self._where):
            for first in range(0, ref.num_chunks, _PIPELINE):
                pipe = self._client.pipeline(transaction=False)
                for i in range(first, min(first + _PIPELINE, ref.num_chunks)):
                    chunk = bytes(view[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES])
                    if fail_points.reach("chunk", index=i) == "corrupt":
                        chunk = fail_points.corrupted(chunk)
                    pipe.set(f"{key}:{i}", chunk, ex=ttl_s)
                pipe.execute()
                fail_points.reach("pushed", index=first)
        return ref

    def pull(self, ref: TensorRef) -> bytearray:
        """Read a blob back.

        Raises:
            ChunksMissing: Some chunks expired or were dropped.
            Corrupted: The bytes do not have the checksum or length of the reference.
        """
        blob = bytearray()
        keys = ref.chunk_keys()
        with redis_errors(self._where):
            for first in range(0, len(keys), _PIPELINE):
                part: Any = self._client.mget(keys[first : first + _PIPELINE])
                missing = sum(1 for chunk in part if chunk is None)
                if missing:
                    raise ChunksMissing(key=ref.key, missing=missing, expected=len(keys))
                for chunk in part:
                    blob += chunk
                if len(blob) > ref.num_bytes:
                    break  # more than was announced: do not fetch the rest
        if len(blob) != ref.num_bytes:
            raise Corrupted(
                what=ref.key, got=f"{len(blob)} bytes", expected=f"{ref.num_bytes} bytes"
            )
        crc = zlib.crc32(blob)
        if crc != ref.crc:
            raise Corrupted(what=ref.key, got=f"crc {crc:08x}", expected=f"crc {ref.crc:08x}")
        return blob

    def has(self, ref: TensorRef) -> bool:
        """Whether every chunk of a blob is there."""
        with redis_errors(self._where):
            return self._client.exists(*ref.chunk_keys()) == ref.num_chunks

    def keep(self, *refs: TensorRef, ttl_s: int = TTL_S) -> None:
        """Give blobs that are still referred to another ``ttl_s``."""
        with redis_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            for ref in refs:
                for key in ref.chunk_keys():
                    pipe.expire(key, ttl_s)
            pipe.execute()

    def drop(self, *refs: TensorRef) -> None:
        """Forget blobs at once (their TTL would do it later)."""
        keys = [key for ref in refs for key in ref.chunk_keys()]
        if keys:
            with redis_errors(self._where):
                self._client.unlink(*keys)
