"""Moves large values over a client's own connections, without needless copies.

redis-py takes a value apart and puts it together again several times over, so that reading it is
five times as slow as the socket. Here a value is received right into its final memory and sent from
where it lies, with several commands in flight each way. Tensors and batches travel by it.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

#: Commands in flight: enough to keep both ends busy, few enough to bound what a server holds.
IN_FLIGHT = 16

#: How often a reading is taken up again after its connection broke, and the pause before that.
_RETRIES, _PAUSE_S = 3, 0.1

#: How much of a reply is received at once; longer values are received into their final memory.
_BUFFER_BYTES = 16 * 1024

#: How to read replies of one line, by their first byte.
_OTHER: dict[bytes, Callable[[bytes], Any]] = {
    b"+": bytes,
    b"_": lambda _: None,
    b"#": lambda text: text == b"t",
    b",": float,
}


def read_values(
    client: "Redis",
    keys: Sequence[str],
    place: Callable[[int, int], memoryview],
    done: Callable[[int], None],
) -> None:
    """GET values in order, each into the caller's memory.

    Args:
        client: The client whose connections to use.
        keys: The keys.
        place: Called with a key's index and its value's length (-1: it does not exist). It
            returns where to put the value, as a view of that length. It may raise to end the
            reading.
        done: Called with the index when a value is there; may raise to end the reading.

    Raises:
        redis.exceptions.RedisError: The server does not answer, or refuses.
    """
    from redis.exceptions import ConnectionError as Broken
    from redis.exceptions import TimeoutError as Late

    finished = 0
    failures = 0
    while finished < len(keys):
        try:
            # It is closed at once, also if `done` raises: then its connection is cut and returned.
            with closing(_values(client, keys, finished, place)) as values:
                for index in values:
                    done(index)
                    finished, failures = index + 1, 0
        except (Broken, Late):
            # Values that have come stay: go on with the next one, on another connection.
            failures += 1
            if failures > _RETRIES:
                raise
            time.sleep(_PAUSE_S * failures)


def _values(
    client: "Redis", keys: Sequence[str], first: int, place: Callable[[int, int], memoryview]
) -> Generator[int, None, None]:
    with _connection(client) as link:
        asked = min(first + IN_FLIGHT, len(keys))
        link.send_packed_command(link.pack_commands([("GET", key) for key in keys[first:asked]]))
        wire = _Replies(link)
        for index in range(first, len(keys)):
            length = wire.length()
            view = place(index, length)
            if length >= 0:
                wire.receive(view)
            if asked < len(keys):
                link.send_packed_command(link.pack_command("GET", keys[asked]), check_health=False)
                asked += 1
            yield index


def exchange(client: "Redis", commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Send commands in one go, and read their replies. One of them may block.

    The server begins a connection's next command when it has answered the one before. So a command
    behind one that blocks is carried out as soon as the block ends, without another trip. All
    commands must be safe to repeat: they are sent again if the connection breaks.

    Returns:
        The replies, undecoded. A refusal (``ResponseError``) is a reply, too.

    Raises:
        redis.exceptions.RedisError: The server does not answer.
    """
    from redis.exceptions import ConnectionError as Broken
    from redis.exceptions import TimeoutError as Late

    failures = 0
    while True:
        try:
            with _connection(client) as link:
                link.send_packed_command(link.pack_commands(commands))
                replies = _Replies(link)
                return [replies.read() for _ in commands]
        except (Broken, Late):
            failures += 1
            if failures > _RETRIES:
                raise
            time.sleep(_PAUSE_S * failures)


@contextmanager
def _connection(client: "Redis") -> Iterator[Any]:
    """Lend a connection of the client's pool; it is cut if replies may still be on their way."""
    pool = client.connection_pool
    link: Any = pool.get_connection()
    try:
        yield link
    except BaseException:
        link.disconnect()
        raise
    finally:
        pool.release(link)


class Sender:
    """Sends commands without waiting for their replies, on a connection of its own.

    It does not raise if the connection breaks, or if the server does not know a script (any more):
    ``finish`` tells of it.
    """

    def __init__(self, client: "Redis") -> None:
        self._pool = client.connection_pool
        self._link: Any = None
        self._unanswered = 0
        self._is_broken = False
        #: The last reply that was read.
        self.reply: Any = None

    def send(self, *command: Any) -> None:
        """Send a command; large values are sent from where they lie.

        Raises:
            redis.exceptions.RedisError: The server refused an earlier command.
        """
        if not self._is_broken:
            self._attempt(lambda: self._send(command))

    def finish(self) -> bool:
        """Wait for the replies, and return whether every command was answered and known.

        Raises:
            redis.exceptions.RedisError: The server refused a command.
        """
        self._attempt(lambda: self._answers(0))
        answered = not self._is_broken
        self._release()
        return answered

    def close(self) -> None:
        """Give the connection back without waiting for replies."""
        if self._unanswered:
            self._cut()
        self._release()

    def _send(self, command: tuple[Any, ...]) -> None:
        if self._link is None:
            self._link = self._pool.get_connection()
        packed = self._link.pack_command(*command)
        self._link.send_packed_command(packed, check_health=not self._unanswered)
        self._unanswered += 1
        self._answers(IN_FLIGHT)

    def _answers(self, at_most: int) -> None:
        while self._unanswered > at_most:
            self.reply = self._link.read_response(disable_decoding=True)
            self._unanswered -= 1

    def _attempt(self, action: Callable[[], None]) -> None:
        from redis.exceptions import ConnectionError as Broken
        from redis.exceptions import NoScriptError
        from redis.exceptions import TimeoutError as Late

        try:
            action()
        except (Broken, Late, NoScriptError):
            self._cut()
        except BaseException:
            self._cut()
            self._release()
            raise

    def _cut(self) -> None:
        self._is_broken = True
        self._unanswered = 0
        if self._link is not None:
            self._link.disconnect()

    def _release(self) -> None:
        if self._link is not None:
            self._pool.release(self._link)
            self._link = None


class _Replies:
    """Reads replies from a connection's socket, large values into memory of their own.

    No other reply may be on its way on that connection, and all replies must be read.
    """

    def __init__(self, link: Any) -> None:
        self._link = link
        # redis-py's own parsers use this private attribute, too.
        self._socket = link._sock  # noqa: SLF001
        self._memory = bytearray(_BUFFER_BYTES)
        self._start = self._end = 0

    def read(self) -> Any:
        """Read one reply: bytes, int, float, bool, None, an error, or a list (also for maps)."""
        kind, rest = self._header()
        if kind in b"$=":
            return self._value(int(rest))
        if kind in b"*~%":
            return [self.read() for _ in range(int(rest) * (1 + (kind == b"%")))]
        if kind in b":(":
            return int(rest)
        if kind == b"-":
            return self._link._parser.parse_error(rest.decode("utf-8", "replace"))  # noqa: SLF001
        if kind == b">":
            # A push message, which we did not ask for.
            for _ in range(int(rest)):
                self.read()
            return self.read()
        return _OTHER[kind](rest)

    def length(self) -> int:
        """Read the header of a bulk reply: the value's length, or -1 if there is no value."""
        kind, rest = self._header()
        if kind == b"$":
            return int(rest)
        if kind == b"_":
            return -1
        if kind == b"-":
            raise self._link._parser.parse_error(rest.decode("utf-8", "replace"))  # noqa: SLF001
        raise self._broken(f"unexpected reply {(kind + rest)[:40]!r}")

    def receive(self, view: memoryview) -> None:
        """Read the value that ``length`` announced, and the line end that follows it."""
        there = min(len(view), self._end - self._start)
        view[:there] = memoryview(self._memory)[self._start : self._start + there]
        self._start += there
        view = view[there:]
        while len(view):
            view = view[self._receive_into(view) :]
        self._line()

    def _value(self, length: int) -> bytes | bytearray | None:
        if length < 0:
            return None
        if length + 2 <= self._end - self._start:
            value = bytes(memoryview(self._memory)[self._start : self._start + length])
            self._start += length + 2
            return value
        value_there = bytearray(length)
        self.receive(memoryview(value_there))
        # Small values are names and numbers, and must be hashable.
        return bytes(value_there) if length < _BUFFER_BYTES else value_there

    def _header(self) -> tuple[bytes, bytes]:
        line = self._line()
        if not line:
            raise self._broken("unexpected empty reply")
        return line[:1], line[1:]

    def _line(self) -> bytes:
        while (found := self._memory.find(b"\r\n", self._start, self._end)) < 0:
            if self._end - self._start == len(self._memory):
                raise self._broken("a reply without end")
            self._refill()
        line = bytes(memoryview(self._memory)[self._start : found])
        self._start = found + 2
        return line

    def _refill(self) -> None:
        if self._start:
            there = self._end - self._start
            self._memory[:there] = self._memory[self._start : self._end]
            self._start, self._end = 0, there
        self._end += self._receive_into(memoryview(self._memory)[self._end :])

    def _receive_into(self, view: memoryview) -> int:
        from redis.exceptions import TimeoutError as Late

        try:
            count: int = self._socket.recv_into(view)
        except TimeoutError as err:
            raise Late("no reply in time") from err
        except (OSError, AttributeError) as err:  # AttributeError: it was closed meanwhile
            raise self._broken(str(err)) from err
        if not count:
            raise self._broken("connection closed by server")
        return count

    def _broken(self, why: str) -> Exception:
        from redis.exceptions import ConnectionError as Broken

        return Broken(why)
