"""``kubeml flower``: run Flower so that it shows and keeps the pool's tasks and changes nothing."""

import errno
import os
import socket
import sys
from importlib.util import find_spec
from ipaddress import ip_address

from brokers.settings import Settings, child_environment
from kubeml.errors import Conflict, InvalidOption, InvalidSetting

#: Tasks kept in memory: about 2 kB each.
MAX_TASKS = 10_000

_MAX_WORKERS = 1_000
_SAVE_EVERY_MS = 30_000
_FORGET_WORKER_AFTER_S = 3600


def exec_flower(settings: Settings, *, host: str, port: int, max_tasks: int) -> None:
    """Become Flower on the settings' broker until SIGTERM.

    Args:
        settings: They name the broker, and ``flower_auth`` says who may look.
        host: Address to bind.
        port: Port to bind.
        max_tasks: How many tasks it remembers; it forgets the oldest first.

    Raises:
        InvalidOption: Other machines could reach it and it has no password, or this machine does
            not have the address.
        InvalidSetting: ``flower_auth`` has a part that is not ``USER:PASSWORD``.
        Conflict: Flower is not installed, or the port is taken.
    """
    check_auth(settings.flower_auth)
    if not settings.flower_auth and not _is_loopback(host):
        raise InvalidOption(
            option="--host", got=host, expected="127.0.0.1, or KUBEML_FLOWER_AUTH=USER:PASSWORD set"
        )
    if find_spec("flower") is None:
        raise Conflict(what="Flower is not installed", hint="pip install 'kubeml[flower]'")
    # Flower itself reports a taken port by a traceback, after it has connected to everything.
    check_port(host, port)
    folder = settings.home / "flower"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "address": host,
        "port": str(port),
        "db": str(folder / "state"),
        "persistent": "true",
        "state_save_interval": str(_SAVE_EVERY_MS),
        "max_tasks": str(max_tasks),
        "max_workers": str(_MAX_WORKERS),
        "purge_offline_workers": str(_FORGET_WORKER_AFTER_S),
        # Flower's buttons would end workers and tasks. Workers send their events unasked anyway.
        "read_only": "true",
        "enable_events": "false",
        "unauthenticated_api": "false",
        "tasks_columns": "name,uuid,args,state,result,received,runtime,worker",
    }
    env = child_environment(settings)
    # All options travel by environment: anybody on the machine can read arguments.
    env |= {f"FLOWER_{name.upper()}": value for name, value in options.items()}
    env.pop("FLOWER_BASIC_AUTH", None)
    if settings.flower_auth:
        env["FLOWER_BASIC_AUTH"] = settings.flower_auth
    command = [
        sys.executable,
        "-P",
        "-m",
        "celery",
        "-A",
        "tasks.flower_app",
        "flower",
    ]
    # Flower looks for a configuration file of its own in the current folder.
    os.chdir(folder)
    os.execve(sys.executable, command, env)  # noqa: S606 - our own interpreter, no shell


def check_auth(auth: str) -> None:
    """Check ``flower_auth``: pairs of user and password, separated by commas. It is never shown.

    Raises:
        InvalidSetting: A part is not ``USER:PASSWORD``.
    """
    pairs = [part.partition(":") for part in auth.split(",")] if auth else []
    if not all(user and password for user, _, password in pairs):
        raise InvalidSetting(
            setting="KUBEML_FLOWER_AUTH",
            fault="is not of the form user:password",
            hint="several are divided by commas, so that none has a comma in it",
        )


def check_port(host: str, port: int) -> None:
    """Check that Flower will be able to bind, on every address that the host stands for.

    Raises:
        InvalidOption: The host is no address of this machine.
        Conflict: The port is taken, or this user may not bind it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        found = []
    is_ours = False
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as sock:
                # Flower sets these, too: a port counts as free although an old connection lingers,
                # and 0.0.0.0 and :: do not exclude each other.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
        except OSError as err:
            if err.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                # localhost may also stand for ::1 on a machine without IPv6.
                continue
            taken = err.errno == errno.EADDRINUSE
            why = "is taken" if taken else f"cannot be had: {err.strerror}"
            raise Conflict(
                what=f"--port {port} on {host} {why}", hint="choose another one with --port"
            ) from err
        is_ours = True
    if not is_ours:
        raise InvalidOption(option="--host", got=repr(host), expected="an address of this machine")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
