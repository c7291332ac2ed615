"""An HTTP proxy in front of the S3 server that answers some requests badly."""

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = {"transfer-encoding", "connection", "keep-alive", "content-length"}


@dataclass
class Fault:
    """What happens to the requests that fit.

    Attributes:
        fits: (method, path) to whether the request is meant.
        how: ``error`` (503), ``slow`` (an extra second), ``short`` (half of the body, then the
            connection ends), ``wrong`` (a byte of the body changed), ``lost`` (the server does
            what it is asked to, and its answer never comes), ``count`` (nothing).
        left: How many requests it is to hit.
        hit: How many it has hit.
    """

    fits: Callable[[str, str], bool]
    how: str
    left: int
    hit: int = 0


class S3Proxy:
    """Forwards a loopback port of its own to an S3 server."""

    def __init__(self, target_port: int) -> None:
        self._faults: list[Fault] = []
        self._guard = threading.Lock()
        proxy = self

        class Handler(_Handler):
            """Bound to this proxy."""

            def fault(self) -> str:
                return proxy._pick(self.command, self.path)

        Handler.target_port = target_port
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, fits: Callable[[str, str], bool], how: str, *, times: int = 1) -> Fault:
        """Let the next so many requests that fit go wrong."""
        fault = Fault(fits=fits, how=how, left=times)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """No fault any more."""
        self._faults.clear()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def _pick(self, method: str, path: str) -> str:
        with self._guard:
            for fault in self._faults:
                if fault.left > 0 and fault.fits(method, path):
                    fault.left -= 1
                    fault.hit += 1
                    return fault.how
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target_port = 0

    def fault(self) -> str:
        raise AssertionError

    def log_message(self, *_args: object) -> None:
        """Nothing: the S3 server has a log of its own."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        how = self.fault()
        if how == "error":
            self._answer(503, [("Content-Type", "application/xml")], _BUSY)
            return
        if how == "slow":
            time.sleep(1.0)
        upstream = http.client.HTTPConnection("127.0.0.1", self.target_port, timeout=30)
        try:
            headers = {key: value for key, value in self.headers.items() if key != "Expect"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            upstream.close()
        if how == "lost":
            self.close_connection = True
            return
        if how == "wrong" and data:
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        kept = [(key, value) for key, value in answer.getheaders() if key.lower() not in _HOP]
        size = int(answer.getheader("Content-Length") or len(data))
        self._answer(answer.status, kept, data, size=size, cut=how == "short")

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        *,
        size: int | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response_only(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815


_BUSY = (
    b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
    b"</Message></Error>"
)
