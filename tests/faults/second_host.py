"""A second host: a network namespace at the other end of a cable that can be pulled."""

import secrets
import shutil
import subprocess


class SecondHost:
    """A host of its own network, joined to this one by a veth pair. Needs root and iproute2.

    The cable is pulled at this end, as if at a switch: the host there keeps its address and routes,
    what either sends is dropped, and connections stay open at both ends.
    """

    def __init__(self) -> None:
        self.name = f"kml-{secrets.token_hex(4)}"
        self._port = f"{self.name}-p"
        # Of the range for tests of networks (RFC 2544): no real network is hidden.
        network = f"198.18.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}"
        prefix, last = network.rsplit(".", 1)
        #: Of this host and of the second one, on the cable.
        self.here, self.there = (f"{prefix}.{int(last) + offset}" for offset in (1, 2))
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._port, "type", "veth", "peer", "eth0", "netns", self.name)
            _ip("addr", "add", f"{self.here}/30", "dev", self._port)
            _ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", self.name, "link", "set", link, "up")
            self.plug_in()
        except BaseException:
            self.close()
            raise

    @property
    def inside(self) -> tuple[str, ...]:
        """The command that runs another one there, and becomes it."""
        return ("ip", "netns", "exec", self.name)

    def pull_cable(self) -> None:
        """From now on everything that is sent is dropped."""
        _ip("link", "set", self._port, "down")

    def plug_in(self) -> None:
        """The cable is there again."""
        _ip("link", "set", self._port, "up")

    def close(self) -> None:
        """Take the namespace away, and with it both ends of the cable."""
        _ip("netns", "del", self.name)


def why_no_second_host() -> str:
    """Why there can be none on this machine; "" if there can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    try:
        SecondHost().close()
    except subprocess.CalledProcessError as err:
        return f"{' '.join(err.cmd)}: {err.stderr.strip()}"
    return ""


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
