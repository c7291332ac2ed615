"""How Flower is run for kubeml: it looks, keeps what it saw, and changes nothing."""

import os
import sys
from importlib.util import find_spec
from ipaddress import ip_address

from brokers.settings import Settings, child_environment
from kubeml.errors import Conflict, InvalidOption

#: Tasks kept in memory: about 2 kB each.
MAX_TASKS = 10_000

_MAX_WORKERS = 1_000
_SAVE_EVERY_MS = 30_000
_FORGET_WORKER_AFTER_S = 3600


def exec_flower(settings: Settings, *, host: str, port: int, max_tasks: int) -> None:
    """Become Flower on the settings' broker until SIGTERM.

    Args:
        settings: With the broker, and ``flower_auth`` for who may look.
        host: Address to bind.
        port: Port to bind.
        max_tasks: How many tasks it remembers; the oldest go first.

    Raises:
        InvalidOption: Others could reach it, and it has no password.
        Conflict: Flower is not installed.
    """
    if not settings.flower_auth and not _is_loopback(host):
        raise InvalidOption(
            option="--host", got=host, expected="127.0.0.1, or KUBEML_FLOWER_AUTH=USER:PASSWORD set"
        )
    if find_spec("flower") is None:
        raise Conflict(what="Flower is not installed", hint="pip install 'kubeml[flower]'")
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
        # Its buttons would end workers and tasks. Workers send their events without being asked.
        "read_only": "true",
        "enable_events": "false",
        "unauthenticated_api": "false",
        "tasks_columns": "name,uuid,args,state,result,received,runtime,worker",
    }
    env = child_environment(settings)
    # By the environment, as all of them: arguments are for everybody to read.
    env |= {f"FLOWER_{name.upper()}": value for name, value in options.items()}
    env.pop("FLOWER_BASIC_AUTH", None)
    if settings.flower_auth:
        env["FLOWER_BASIC_AUTH"] = settings.flower_auth
    command = [
        sys.executable, "-P", "-m", "celery", "-A", "tasks.flower_app", "flower",
    ]  # fmt: skip
    # It looks for a configuration file of its own in the current folder.
    os.chdir(folder)
    os.execve(sys.executable, command, env)  # noqa: S606 - our own interpreter, no shell


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
