"""Servers that know who is who: each role has its own user and keys, by ``kubeml access``."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from brokers.errors import KubemlError
from brokers.objects.store import ObjectStore
from brokers.settings import Secret, Settings
from kubeml.ops.access import ROLES, RedisServer, write_access
from kubeml.stack.servers import (
    ServerPlan,
    s3_command,
    s3_environment,
    valkey_command,
)
from tests.eventually import eventually
from tests.processes import running_server


@dataclass
class Guarded:
    """A pool on servers that know who is who."""

    folder: Path
    plan: ServerPlan
    base: Settings

    def env(self, role: str) -> dict[str, str]:
        lines = (self.folder / "access" / f"{role}.env").read_text().splitlines()
        env = dict(line.split("=", 1) for line in lines)
        return env | {"KUBEML_STATE_URL": env["KUBEML_BROKER_URL"]}

    def settings(self, role: str) -> Settings:
        env = self.env(role)
        url = Secret(env["KUBEML_BROKER_URL"])
        return self.base.with_changes(
            broker_url=url, state_url=url,
            s3_access_key=Secret(env.get("AWS_ACCESS_KEY_ID", "")),
            s3_secret_key=Secret(env.get("AWS_SECRET_ACCESS_KEY", "")),
        )  # fmt: skip

    def redis(self, role: str) -> Redis:
        return Redis.from_url(self.env(role)["KUBEML_BROKER_URL"])

    def secrets(self) -> list[str]:
        found = []
        for role in ROLES:
            env = self.env(role)
            found.append(env["KUBEML_BROKER_URL"].split(":")[2].split("@")[0])
            found += [env[key] for key in ("AWS_SECRET_ACCESS_KEY",) if key in env]
        return found


@contextmanager
def guarded_servers(folder: Path, *, address: str = "127.0.0.1") -> Iterator[Guarded]:
    """Servers with per-role users, started with the files that ``kubeml access`` writes.

    Args:
        folder: Where they keep everything.
        address: The one address of this machine that they answer at.
    """
    plan = ServerPlan.make()
    s3_url = f"http://{address}:{plan.s3_ports['s3']}"
    write_access(
        folder / "access", broker=RedisServer(host=address, port=plan.valkey_port), bucket="kubeml",
        replace=False, s3_url=s3_url,
    )  # fmt: skip
    command = valkey_command(plan, folder / "valkey")
    config = folder / "valkey" / "valkey.conf"
    text = config.read_text().replace("bind 127.0.0.1", f"bind {address}")
    lines = [line for line in text.splitlines() if "requirepass" not in line]
    config.write_text("\n".join([*lines, f'aclfile "{folder}/access/users.acl"', ""]))
    s3 = [part.replace("127.0.0.1", address) for part in s3_command(plan, folder / "s3")]
    shutil.copy(folder / "access" / "s3-identities.json", folder / "s3" / "identities.json")
    base = Settings(home=folder / "home", s3_endpoint_url=s3_url, log_level="DEBUG")
    pool = Guarded(folder, plan, base)
    with (
        running_server(command, folder / "valkey" / "log"),
        running_server(s3, folder / "s3" / "log", env=s3_environment()),
    ):
        eventually(lambda: _answers(pool), within_s=30, what="servers")
        yield pool


def _answers(pool: Guarded) -> bool:
    try:
        ObjectStore(pool.settings("client")).ensure_bucket()
        return bool(pool.redis("client").ping())
    except (KubemlError, RedisError):
        return False
