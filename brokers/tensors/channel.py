"""Sends blobs of tensors through the state server: in chunks of 2 MiB, checksummed, expiring.

Weights and contributions are *passing*: they bypass the server's append-only file (and replicas).
The file would otherwise have every byte of every round, which would cost more than all the rest. A
server that restarts from its file has forgotten them: contributions are made again, and weights
come back from the memory of the parameter server that merged them, or from the last checkpoint.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from brokers.errors import ChunksMissing, Corrupted
from brokers.state import exchange
from brokers.state.batch import Batch
from brokers.state.error_mapping import redis_errors
from brokers.state.scripts import run_together
from brokers.tensors.chunks import CHUNK_BYTES, TTL_S, Buffer, checksum
from brokers.tensors.parcel import Parcel
from brokers.tensors.reference import TensorRef

if TYPE_CHECKING:
    from redis import Redis

#: How many chunks are received ahead of the one in hand. Blobs of fewer chunks are not read ahead.
_READ_AHEAD = 4


class TensorChannel:
    """Pushes and pulls blobs."""

    def __init__(self, client: "Redis", *, where: str = "the state server") -> None:
        self._client = client
        self._where = where
        #: Memory to read ahead into. It is taken once; otherwise every thread would take its own.
        self._pieces: list[memoryview] = []

    def push(
        self, key: str, blob: Buffer, *, ttl_s: int = TTL_S, is_passing: bool = False
    ) -> TensorRef:
        """Store a blob under a key that was never used before.

        Args:
            key: The key.
            blob: The bytes.
            ttl_s: Seconds until an orphan expires.
            is_passing: Whether a server may forget it when it restarts.

        Returns:
            The reference by which ``pull`` finds it.
        """
        with self.parcel() as parcel:
            ref = parcel.stage(key, blob, ttl_s=ttl_s, is_passing=is_passing).send()
            parcel.finish()
        return ref

    def parcel(self) -> Parcel:
        """Return a parcel: it stores blobs piece by piece as they are made, several in one trip."""
        return Parcel(self._client, self._where)

    def pull(self, ref: TensorRef, *, into: bytearray | None = None) -> bytearray:
        """Read a blob back.

        Args:
            ref: What ``push`` returned.
            into: Memory to use again if it has the blob's length; its content is undefined after
                an error.

        Raises:
            ChunksMissing: Some chunks expired or were dropped.
            Corrupted: The bytes do not have the checksum or length of the reference.
        """
        if into is None or len(into) != ref.num_bytes:
            if ref.num_bytes > CHUNK_BYTES:
                self._require(ref)  # before so much memory is taken on the reference's word alone
            into = bytearray(ref.num_bytes)
        whole = memoryview(into)
        self._read(ref, lambda index, length: whole[index * CHUNK_BYTES :][:length], _nothing)
        return into

    def read(self, ref: TensorRef, feed: Callable[[memoryview], None]) -> None:
        """Read a blob piece by piece, with the next pieces on their way meanwhile.

        Args:
            ref: What ``push`` returned.
            feed: Called with each piece in turn; its memory is used again for later pieces. It may
                raise to end the reading.

        Raises:
            ChunksMissing, Corrupted: As in ``pull``; pieces may have been fed already.
        """
        if ref.num_chunks >= _READ_AHEAD:
            self._read_ahead(ref, feed)
            return
        piece = memoryview(bytearray(min(CHUNK_BYTES, ref.num_bytes)))
        self._read(ref, lambda _, length: piece[:length], feed)

    def _read_ahead(self, ref: TensorRef, feed: Callable[[memoryview], None]) -> None:
        """Receive the next pieces in a thread while ``feed`` is at work."""
        free: SimpleQueue[memoryview | None] = SimpleQueue()
        full: SimpleQueue[memoryview | BaseException | None] = SimpleQueue()
        pieces, self._pieces = self._pieces, []
        pieces = pieces or [memoryview(bytearray(CHUNK_BYTES)) for _ in range(_READ_AHEAD)]
        for memory in pieces:
            free.put(memory)
        in_hand: memoryview | None = None

        def place(_index: int, length: int) -> memoryview:
            nonlocal in_hand
            # If its connection broke, a piece comes again, into the memory that it had.
            if in_hand is None and (in_hand := free.get()) is None:
                raise InterruptedError
            return in_hand[:length]

        def hand_over(piece: memoryview) -> None:
            nonlocal in_hand
            in_hand = None
            full.put(piece)

        def receive() -> None:
            try:
                self._read(ref, place, hand_over)
                full.put(None)
            except BaseException as err:  # noqa: BLE001 - raised again in the feeding thread
                full.put(err)

        thread = threading.Thread(target=receive, name="kubeml-read", daemon=True)
        thread.start()
        try:
            while (piece := full.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                feed(piece)
                free.put(memoryview(piece.obj))
        finally:
            free.put(None)
            thread.join()
            self._pieces = pieces

    def _read(
        self,
        ref: TensorRef,
        place: Callable[[int, int], memoryview],
        feed: Callable[[memoryview], None],
    ) -> None:
        crc = 0
        view = memoryview(b"")

        def placed(index: int, length: int) -> memoryview:
            nonlocal view
            expected = min(CHUNK_BYTES, ref.num_bytes - index * CHUNK_BYTES)
            if length < 0:
                raise ChunksMissing(key=ref.key, missing=1, expected=ref.num_chunks)
            if length != expected:
                raise _wrong_length(ref, ref.num_bytes - expected + length)
            view = place(index, length)
            return view

        def done(_index: int) -> None:
            nonlocal crc
            crc = checksum(view, crc)
            feed(view)

        if ref.num_chunks != max(1, -(-ref.num_bytes // CHUNK_BYTES)):
            self._require(ref)
            raise _wrong_length(ref, ref.num_chunks * CHUNK_BYTES)
        try:
            with redis_errors(self._where):
                exchange.read_values(self._client, ref.chunk_keys(), placed, done)
        except ChunksMissing:
            self._require(ref)  # its error tells how many are missing
            raise
        if crc != ref.crc:
            raise Corrupted(what=ref.key, got=f"crc {crc:08x}", expected=f"crc {ref.crc:08x}")

    def _require(self, ref: TensorRef) -> None:
        with redis_errors(self._where):
            there: Any = self._client.exists(*ref.chunk_keys())
        if there != ref.num_chunks:
            missing = ref.num_chunks - there
            raise ChunksMissing(key=ref.key, missing=missing, expected=ref.num_chunks)

    def has(self, ref: TensorRef) -> bool:
        """Return whether every chunk of a blob is there."""
        with redis_errors(self._where):
            return self._client.exists(*ref.chunk_keys()) == ref.num_chunks

    def keep(self, *refs: TensorRef) -> None:
        """Let blobs that are still referred to live for another ``TTL_S``."""
        with redis_errors(self._where):
            pipe = self._client.pipeline(transaction=False)
            for ref in refs:
                for key in ref.chunk_keys():
                    pipe.expire(key, TTL_S)
            pipe.execute()

    def drop(self, *refs: TensorRef) -> None:
        """Delete blobs at once; their TTL would do so later."""
        if refs:
            with redis_errors(self._where):
                run_together(self._client, first=self.dropping(*refs))

    def dropping(self, *refs: TensorRef) -> Batch:
        """Return the commands of ``drop``, to be carried out along with others."""
        batch = Batch()
        for ref in refs:
            batch.add("UNLINK", *ref.chunk_keys())
        return batch


def _wrong_length(ref: TensorRef, got: int) -> Corrupted:
    return Corrupted(what=ref.key, got=f"{got} bytes", expected=f"{ref.num_bytes} bytes")


def _nothing(_piece: memoryview) -> None:
    """Do nothing with a piece: ``pull`` wants only the whole."""
