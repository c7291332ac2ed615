"""A TCP proxy that can cut, stall, slow down, swallow replies, and end TLS."""

import contextlib
import select
import socket
import ssl
import threading
import time
from pathlib import Path


class TcpProxy:
    """Forwards a loopback port of its own to another one; every fault is off at first."""

    def __init__(
        self, target: int | Path, *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        #: A port, or the path of a socket.
        self.target = target
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._guard = threading.Lock()
        self._stalled = threading.Event()
        self._refusing = threading.Event()
        self._closed = threading.Event()
        self._delay_s = 0.0
        self._replies_to_lose = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        """No fault any more; what was held back goes on."""
        self._delay_s, self._replies_to_lose = 0.0, 0
        self._stalled.clear()
        self._refusing.clear()

    def stall(self) -> None:
        """Half-open: connections stay, no byte passes, in either direction."""
        self._stalled.set()

    def cut(self, *, refuse: bool = False) -> None:
        """Reset every connection; with ``refuse`` new ones too, until ``heal``."""
        if refuse:
            self._refusing.set()
        for pair in self._open_pairs():
            self._drop(pair)

    def slow_down(self, delay_s: float) -> None:
        """Every chunk takes so much longer, each way."""
        self._delay_s = delay_s

    def lose_replies(self, count: int) -> None:
        """Let the next requests through, and reset the connection instead of their replies."""
        self._replies_to_lose = count

    @property
    def replies_to_lose(self) -> int:
        """How many are to be lost still."""
        return self._replies_to_lose

    def close(self) -> None:
        """End it."""
        self._closed.set()
        self._listener.close()
        self.cut()

    def _open_pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        with self._guard:
            return list(self._pairs)

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._refusing.is_set():
            client.close()
            return
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = self._connect()
        except OSError:
            client.close()
            return
        pair = (client, server)
        for one in pair:
            one.settimeout(None)
            if one.family != socket.AF_UNIX:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._guard:
            self._pairs.add(pair)
        try:
            self._forward(client, server)
        except (OSError, ValueError):
            return
        finally:
            self._drop(pair)

    def _connect(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection(("127.0.0.1", self.target), timeout=5)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self.target))
        return server

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            if self._stalled.is_set():
                time.sleep(0.02)
                continue
            ready: list[socket.socket] = [client]
            # What TLS has decrypted already, select does not see.
            if not (isinstance(client, ssl.SSLSocket) and client.pending()):
                ready, _, _ = select.select([client, server], [], [], 0.2)
            if self._stalled.is_set():
                continue
            for source in ready:
                data = source.recv(1 << 18)
                if not data:
                    return
                if self._delay_s:
                    time.sleep(self._delay_s)
                if source is server and self._replies_to_lose > 0:
                    self._replies_to_lose -= 1
                    return
                (server if source is client else client).sendall(data)

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._guard:
            self._pairs.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
