"""Blobs of tensors through the state server: chunks of 2 MiB, in flight, checksummed, expiring.

Chunks beat one large value four times over, and stay far below Redis' 512 MB limit.

Weights and contributions are *passing*: they bypass the server's append-only file (and replicas),
which would otherwise take down every byte of every round and cost more than all the rest. A server
that restarts from its file has forgotten them: contributions are made again, and weights come back
from the memory of the parameter server that merged them, or from the last checkpoint.
"""

import hashlib
import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from brokers import bulk, fail_points
from brokers.errors import ChunksMissing, Corrupted, MalformedMessage, redis_errors
from brokers.protocol import TensorRef

if TYPE_CHECKING:
    from redis import Redis

CHUNK_BYTES = 2**21

#: SET for what passes: KEYS[1] is the chunk, ARGV its bytes and its seconds to live.
_SET_PASSING = (
    "redis.set_repl(redis.REPL_NONE) return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"
)
_SHA = hashlib.sha1(_SET_PASSING.encode()).hexdigest()  # noqa: S324 - Redis' name of a script

#: Chunks received ahead of the one in hand; of blobs that have fewer, nothing is.
_READ_AHEAD = 4

#: An orphan (a dead worker's push, a superseded merge) is gone after this long.
TTL_S = 900

Buffer = bytes | bytearray | memoryview


def checksum(chunk: Buffer, before: int = 0) -> int:
    """The checksum of a blob up to and with this chunk.

    CRC-32 of what the chunk comes to: the sum and the exclusive or of its 64-bit little-endian
    words, and the bytes that are left. It finds changed, missing and exchanged chunks, in a third
    of the time of the CRC of every byte. Two words of a chunk that change places go unnoticed.

    Args:
        chunk: At most ``CHUNK_BYTES``.
        before: The checksum of the chunks before it.
    """
    import numpy as np  # not at the top: the parents of workers do without

    view = memoryview(chunk)
    whole = len(view) // 8 * 8
    words = np.frombuffer(view[:whole], "<u8")
    brief = struct.pack("<QQ", int(words.sum()), int(np.bitwise_xor.reduce(words)))
    return zlib.crc32(brief + view[whole:], before)


class TensorChannel:
    """Push and pull blobs."""

    def __init__(self, client: "Redis", *, where: str = "the state server") -> None:
        self._client = client
        self._where = where
        #: Memory to read ahead into: taken once, since every thread would take its own else.
        self._pieces: list[memoryview] = []

    def push(
        self, key: str, blob: Buffer, *, ttl_s: int = TTL_S, is_passing: bool = False
    ) -> TensorRef:
        """Store a blob under a key that was never used before.

        Args:
            key: The key.
            blob: The bytes.
            ttl_s: Seconds until an orphan expires.
            is_passing: Whether a server that restarts may have forgotten it.

        Returns:
            The reference by which ``pull`` finds it.
        """
        with self.stage(key, blob, ttl_s=ttl_s, is_passing=is_passing) as staging:
            return staging.finish()

    def stage(
        self, key: str, blob: Buffer, *, ttl_s: int = TTL_S, is_passing: bool = False
    ) -> "Staging":
        """Store a blob piece by piece, while it is still being made; see ``push``."""
        return Staging(self._client, self._where, key, blob, ttl_s=ttl_s, is_passing=is_passing)

    def pull(self, ref: TensorRef, *, into: bytearray | None = None) -> bytearray:
        """Read a blob back.

        Args:
            ref: What ``push`` returned.
            into: Memory to use again if it has the blob's length; undefined after an error.

        Raises:
            ChunksMissing: Some chunks expired or were dropped.
            Corrupted: The bytes do not have the checksum or length of the reference.
        """
        if into is None or len(into) != ref.num_bytes:
            if ref.num_bytes > CHUNK_BYTES:
                self._require(ref)  # before so much memory is taken at somebody's word
            into = bytearray(ref.num_bytes)
        whole = memoryview(into)
        self._read(ref, lambda index, length: whole[index * CHUNK_BYTES :][:length], _nothing)
        return into

    def read(self, ref: TensorRef, feed: Callable[[memoryview], None]) -> None:
        """Read a blob piece by piece, with the next pieces on their way meanwhile.

        Args:
            ref: What ``push`` returned.
            feed: Called with each piece in turn; the memory is used again for the next one. It
                may raise to end the reading.

        Raises:
            ChunksMissing, Corrupted: As ``pull``; pieces may have been fed already.
        """
        if ref.num_chunks >= _READ_AHEAD:
            self._read_ahead(ref, feed)
            return
        piece = memoryview(bytearray(min(CHUNK_BYTES, ref.num_bytes)))
        self._read(ref, lambda _, length: piece[:length], feed)

    def pull_small(self, references: Sequence[str]) -> dict[str, memoryview]:
        """Read blobs of one chunk together, which takes hardly longer than one of them.

        Args:
            references: Their text forms; also of larger blobs, and of what is no reference.

        Returns:
            Reference to blob, as far as they are small and there and right; who reads the others
            one by one hears what is wrong with them.
        """
        refs: list[tuple[str, TensorRef]] = []
        for text in references:
            with suppress(MalformedMessage):
                ref = TensorRef.from_json(text)
                if ref.num_chunks == 1 and ref.num_bytes <= CHUNK_BYTES:
                    refs.append((text, ref))
        found: dict[str, memoryview] = {}
        read: list[memoryview] = []

        def place(_index: int, length: int) -> memoryview:
            read.append(memoryview(bytearray(max(0, length))))
            return read[-1]

        def done(index: int) -> None:
            text, ref = refs[index]
            blob = read[-1]
            if len(blob) == ref.num_bytes and checksum(blob) == ref.crc:
                found[text] = blob

        with redis_errors(self._where):
            bulk.read_values(self._client, [ref.chunk_keys()[0] for _, ref in refs], place, done)
        return found

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
            # A piece whose connection broke comes again, into the memory that was taken for it.
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
            except BaseException as err:  # noqa: BLE001 - raised again by who feeds
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
                bulk.read_values(self._client, ref.chunk_keys(), placed, done)
        except ChunksMissing:
            self._require(ref)  # tells how many
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


class Staging:
    """A blob on its way to the state server, sent as far as it is made. A context manager.

    Sending does not wait for the server: whether it took everything, ``finish`` tells. If the
    connection breaks meanwhile, the blob is sent again then.

    Args:
        client: The state server.
        where: Its name, for messages.
        key: A key that was never used before.
        blob: The blob's memory; what was sent of it may not change any more.
        ttl_s: Seconds until an orphan expires.
        is_passing: Whether a server that restarts may have forgotten it.
    """

    def __init__(
        self, client: "Redis", where: str, key: str, blob: Buffer, *, ttl_s: int, is_passing: bool
    ) -> None:
        self._client, self._where, self._key, self._ttl_s = client, where, key, ttl_s
        self._is_passing = is_passing
        self._view = memoryview(blob).cast("B")
        self._num_chunks = max(1, -(-len(self._view) // CHUNK_BYTES))
        self._sender = bulk.Sender(client)
        self._sent = 0
        self._crc = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()

    def send(self, num_bytes: int | None = None) -> None:
        """Send the chunks that were not sent before: all, or those within ``num_bytes``."""
        if num_bytes is None or num_bytes >= len(self._view):
            ready = self._num_chunks
        else:
            ready = num_bytes // CHUNK_BYTES
        with redis_errors(self._where):
            while self._sent < ready:
                self._sender.send(*self._command(self._sent))
                self._crc = checksum(self._chunk(self._sent), self._crc)
                self._sent += 1
                if self._sent % bulk.IN_FLIGHT == 0 or self._sent == self._num_chunks:
                    fail_points.reach("pushed", index=self._sent - 1)

    def finish(self) -> TensorRef:
        """Send the rest, and wait until the server has everything.

        Raises:
            BackendUnreachable, BackendRefused: It does not answer, or does not take it.
        """
        self.send()
        with redis_errors(self._where):
            if not self._sender.finish():
                self._send_again()
        return TensorRef(
            key=self._key,
            num_chunks=self._num_chunks,
            num_bytes=len(self._view),
            crc=self._crc,
        )

    def abandon(self) -> None:
        """Forget what was sent."""
        self._sender.close()
        with redis_errors(self._where):
            self._client.unlink(*(f"{self._key}:{i}" for i in range(self._num_chunks)))

    def _send_again(self) -> None:
        if self._is_passing:
            self._client.script_load(_SET_PASSING)
        for index in range(self._num_chunks):
            # One by one, each with the client's own retries.
            self._client.execute_command(*self._command(index))  # type: ignore[no-untyped-call]

    def _command(self, index: int) -> tuple[Any, ...]:
        chunk: Buffer = self._chunk(index)
        if fail_points.reach("chunk", index=index) == "corrupt":
            chunk = fail_points.corrupted(bytes(chunk))
        key = f"{self._key}:{index}"
        if self._is_passing:
            return "EVALSHA", _SHA, 1, key, chunk, self._ttl_s
        return "SET", key, chunk, "EX", self._ttl_s

    def _chunk(self, index: int) -> memoryview:
        return self._view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def _wrong_length(ref: TensorRef, got: int) -> Corrupted:
    return Corrupted(what=ref.key, got=f"{got} bytes", expected=f"{ref.num_bytes} bytes")


def _nothing(_piece: memoryview) -> None:
    """For whoever wants the whole."""
