"""Sends blobs to the state server, and a script call that refers to them, in one trip.

Contributions are handed in, and merged weights published, by parcel.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from brokers import fail_points
from brokers.state import exchange
from brokers.state.error_mapping import redis_errors
from brokers.state.scripts import run_together
from brokers.tensors.chunks import CHUNK_BYTES, TTL_S, Buffer, checksum
from brokers.tensors.reference import TensorRef

if TYPE_CHECKING:
    from redis import Redis

#: SET for a passing chunk: KEYS[1] is its key, ARGV its bytes and its seconds to live.
_SET_PASSING = (
    "redis.set_repl(redis.REPL_NONE) return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"
)
_SHA = hashlib.sha1(_SET_PASSING.encode()).hexdigest()  # noqa: S324 - Redis' name of a script


class Parcel:
    """Blobs, and at last a script call that refers to them. A context manager.

    Sending does not wait for the server: ``finish`` or ``deliver`` tells whether it took
    everything. If the connection broke meanwhile, they send all of it again.
    """

    def __init__(self, client: "Redis", where: str) -> None:
        self._client, self._where = client, where
        self._sender = exchange.Sender(client)
        self._stagings: list[Staging] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stage(
        self, key: str, blob: Buffer, *, ttl_s: int = TTL_S, is_passing: bool = False
    ) -> "Staging":
        """Add a blob, to be sent piece by piece while it is still being made.

        Args:
            key: A key that was never used before.
            blob: The blob's memory. What was sent of it must not change until the parcel is there.
            ttl_s: Seconds until an orphan expires.
            is_passing: Whether a server that restarts may have forgotten it.
        """
        staging = Staging(self._sender, self._where, key, blob, ttl_s=ttl_s, is_passing=is_passing)
        self._stagings.append(staging)
        return staging

    def add(self, key: str, blob: Buffer, *, is_passing: bool = False) -> TensorRef:
        """Add a finished blob, and send it."""
        return self.stage(key, blob, is_passing=is_passing).send()

    def chunk_keys(self) -> list[str]:
        """Return the keys of all chunks of all blobs."""
        return [key for staging in self._stagings for key in staging.ref.chunk_keys()]

    def finish(self) -> None:
        """Wait until the server has everything.

        Raises:
            BackendUnreachable, BackendRefused: The server does not answer, or refuses it.
        """
        with redis_errors(self._where):
            if not self._sender.finish():
                self._send_again()

    def deliver(self, command: Sequence[Any]) -> Any:
        """Send a script call behind the blobs, and wait for its answer.

        Args:
            command: See ``brokers.state.scripts.command``. It is repeated if the connection
                breaks. It may find blobs missing that come a moment later: then it must say so
                and do nothing.

        Raises:
            BackendUnreachable, BackendRefused: As in ``finish``.
        """
        with redis_errors(self._where):
            self._sender.send(*command)
            if self._sender.finish():
                return self._sender.reply
            self._send_again()
            return run_together(self._client, command)[0]

    def close(self) -> None:
        """Give the connection back without waiting for the server."""
        self._sender.close()

    def abandon(self) -> None:
        """Delete what was sent."""
        self.close()
        with redis_errors(self._where):
            self._client.unlink(*self.chunk_keys())

    def _send_again(self) -> None:
        self._client.script_load(_SET_PASSING)
        for staging in self._stagings:
            for index in range(staging.num_chunks):
                # Chunks are sent one by one, each with the client's own retries.
                self._client.execute_command(*staging.command(index))  # type: ignore[no-untyped-call]


class Staging:
    """A blob of a parcel that is sent while it is made; see ``Parcel.stage``."""

    def __init__(
        self,
        sender: exchange.Sender,
        where: str,
        key: str,
        blob: Buffer,
        *,
        ttl_s: int,
        is_passing: bool,
    ) -> None:
        self._sender, self._where, self._key, self._ttl_s = sender, where, key, ttl_s
        self._is_passing = is_passing
        self._view = memoryview(blob).cast("B")
        self.num_chunks = max(1, -(-len(self._view) // CHUNK_BYTES))
        self._sent = 0
        self._crc = 0

    def send(self, num_bytes: int | None = None) -> TensorRef:
        """Send the chunks that were not sent yet: all, or those within the first ``num_bytes``.

        Returns:
            The reference to the blob; its checksum covers what was sent so far.
        """
        if num_bytes is None or num_bytes >= len(self._view):
            ready = self.num_chunks
        else:
            ready = num_bytes // CHUNK_BYTES
        with redis_errors(self._where):
            while self._sent < ready:
                self._sender.send(*self.command(self._sent))
                self._crc = checksum(self._chunk(self._sent), self._crc)
                self._sent += 1
                if self._sent % exchange.IN_FLIGHT == 0 or self._sent == self.num_chunks:
                    fail_points.reach("pushed", index=self._sent - 1)
        return self.ref

    @property
    def ref(self) -> TensorRef:
        """The reference to the blob, as far as it was sent."""
        return TensorRef(
            key=self._key,
            num_chunks=self.num_chunks,
            num_bytes=len(self._view),
            crc=self._crc,
        )

    def command(self, index: int) -> tuple[Any, ...]:
        """Return the command that stores a chunk."""
        chunk: Buffer = self._chunk(index)
        if fail_points.reach("chunk", index=index) == "corrupt":
            chunk = fail_points.corrupted(bytes(chunk))
        key = f"{self._key}:{index}"
        if self._is_passing:
            return "EVALSHA", _SHA, 1, key, chunk, self._ttl_s
        return "SET", key, chunk, "EX", self._ttl_s

    def _chunk(self, index: int) -> memoryview:
        return self._view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
