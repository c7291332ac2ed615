"""``kubeml doctor``: check that all that kubeml needs is there, and is set as it must be."""

import platform
import shutil
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from brokers.pool.node import Node
from brokers.pool.presence import alive_nodes
from brokers.pool.refusals import refusals
from brokers.settings import Settings
from brokers.state.error_mapping import redis_errors
from brokers.wire import new_id
from kubeml.backends import Backends
from kubeml.errors import BackendUnreachable, KubemlError, ObjectExists
from kubeml.ops.probe import silent_servers
from kubeml.ops.record_check import record_faults

_PACKAGES = ("torch", "celery", "kombu", "redis", "boto3", "numpy", "safetensors")
_MIN_REDIS = (7, 0)
_LOW_DISK_BYTES = 2 * 2**30
_MOST_FAULTS = 10


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check: its level (``ok``, ``warning`` or ``bad``), and what to do."""

    check: str
    level: str
    found: str
    hint: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the finding as JSON-able values."""
        return asdict(self)


def examine(settings: Settings) -> list[Finding]:
    """Check everything. A server that cannot be reached is a finding rather than an error."""
    findings = [_packages()]
    silent = silent_servers(settings)
    for server, why in silent.items():
        findings.append(Finding(check=server, level="bad", found=why, hint=BackendUnreachable.hint))
    with Backends(settings) as backends:
        findings += _look(backends, silent)
    return findings


def _look(backends: Backends, silent: Container[str]) -> Iterator[Finding]:
    """Look at every server that answers, and at what they hold."""
    for server, check, look in (
        ("redis", "redis", _redis),
        ("broker", "broker", _broker),
        ("s3", "s3", _s3),
        ("s3", "records", _records),
        ("redis", "pool", _pool),
        ("redis", "refused", _refused),
        ("", "disk", _disk),
    ):
        # A silent server has its finding already, and would keep each of these checks waiting.
        if server not in silent:
            yield from _guarded(check, look, backends)


def _guarded(
    check: str, look: Callable[[Backends], Iterator[Finding]], backends: Backends
) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look(backends))
    except KubemlError as err:
        found.append(Finding(check=check, level="bad", found=str(err), hint=err.hint))
    return found


def _packages() -> Finding:
    known = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            known.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return Finding(
                check="packages", level="bad", found=f"{name} is missing", hint="pip install kubeml"
            )
    return Finding(check="packages", level="ok", found=", ".join(known))


def _redis(backends: Backends) -> Iterator[Finding]:
    client, where = backends.redis, backends.where
    with redis_errors(where):
        started = time.perf_counter()
        # TIME rather than PING, which a server refuses while it cannot write its file.
        clock: Any = client.time()
        took_ms = (time.perf_counter() - started) * 1000
        info: Any = client.info()
    server = str(info.get("valkey_version") or info["redis_version"])
    compatible = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    yield Finding(
        check="redis",
        level="ok" if compatible >= _MIN_REDIS else "bad",
        found=f"{where}, version {server}, answers in {took_ms:.1f} ms",
        hint="kubeml needs Redis 7 or Valkey 7.2 at least",
    )
    # The policy comes from INFO, since servers in a cloud refuse CONFIG.
    evicts = str(info.get("maxmemory_policy", "?"))
    yield Finding(
        check="redis eviction",
        level="ok" if evicts == "noeviction" else "bad",
        found=evicts,
        hint="set maxmemory-policy noeviction: evicted state is lost work",
    )
    yield _persistence(info)
    used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
    yield Finding(
        check="redis memory",
        level="bad" if limit and used > 0.9 * limit else "ok",
        found=f"{used >> 20} MiB of {f'{limit >> 20} MiB' if limit else 'no limit'}",
        hint="give it more memory, or fewer jobs at once",
    )
    apart = abs(time.time() - (clock[0] + clock[1] / 1e6))
    yield Finding(
        check="clock",
        level="ok" if apart < 60 else "warning",
        found=f"{apart:.1f} s apart from the state server's",
        hint="harmless for training (the server's clock decides), confusing in logs",
    )


def _persistence(info: Mapping[str, Any]) -> Finding:
    check = "redis persistence"
    if not int(info.get("aof_enabled", 0)):
        return Finding(
            check=check,
            level="warning",
            found="none",
            hint="set appendonly yes: without it a restart costs the current epoch",
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        return Finding(
            check=check,
            level="bad",
            found="its append-only file cannot be written",
            hint="is its disk full? jobs wait until it can write again",
        )
    return Finding(check=check, level="ok", found="append-only file")


def _broker(backends: Backends) -> Iterator[Finding]:
    settings = backends.settings
    if settings.broker_url == settings.state_url:
        return
    client, where = backends.broker, backends.broker_where
    with redis_errors(where):
        client.ping()
        info: Any = client.info("memory")
    evicts = str(info.get("maxmemory_policy", "?"))
    yield Finding(
        check="broker",
        level="ok" if evicts == "noeviction" else "bad",
        found=f"{where}, {evicts}",
        hint="set maxmemory-policy noeviction: evicted messages are lost",
    )


def _s3(backends: Backends) -> Iterator[Finding]:
    objects = backends.objects
    objects.require_bucket()
    key = f"health/{new_id()}"
    started = time.perf_counter()
    objects.put(key, b"ok")
    objects.get(key)
    took_ms = (time.perf_counter() - started) * 1000
    try:
        objects.create(key, b"again")
        creates = "bad"
    except ObjectExists:
        creates = "ok"
    objects.delete([key])
    yield Finding(
        check="s3",
        level="ok",
        found=f"{objects.where}, bucket {objects.bucket}, put and get in {took_ms:.0f} ms",
    )
    yield Finding(
        check="s3 create-only",
        level=creates,
        found="refused to replace" if creates == "ok" else "replaces what is there",
        hint="the server must honour If-None-Match on PUT",
    )


def _records(backends: Backends) -> Iterator[Finding]:
    faults = list(record_faults(backends))
    yield Finding(
        check="records",
        level="bad" if faults else "ok",
        found="; ".join(faults[:_MOST_FAULTS]) or "whole",
        hint="was the bucket copied while the pool was training? see docs/how-to/back-up.md",
    )


def _pool(backends: Backends) -> Iterator[Finding]:
    nodes = alive_nodes(backends.redis)
    for role, needed_for in (
        ("ps", "merging"),
        ("control", "planning epochs"),
        ("worker", "training"),
    ):
        there = [node for node in nodes if node.role == role]
        count = len(there)
        # Workers that would be started when wanted count as well.
        room = sum(node.room for node in nodes) if role == "worker" else 0
        details = [_devices(there)] if count and role == "worker" else []
        details += [f"{room} more on demand"] if room else []
        yield Finding(
            check=f"{role} processes",
            level="ok" if count or room else "bad",
            found=f"{count} ({', '.join(details)})" if details else str(count),
            hint=f"needed for {needed_for}: kubeml up, or kubeml {role}",
        )


def _devices(nodes: list[Node]) -> str:
    """Return how many workers there are on each device, e.g. ``1 on cpu, 2 on gpu 0``."""
    counts = Counter(f"{node.device} {node.gpu}".rstrip() for node in nodes)
    return ", ".join(f"{count} on {device}" for device, count in sorted(counts.items()))


def _refused(backends: Backends) -> Iterator[Finding]:
    counts = refusals(backends.redis)
    yield Finding(
        check="refused",
        level="warning" if counts else "ok",
        found=", ".join(f"{count} x {door}" for door, count in counts.items()) or "nothing",
        hint="see the logs of workers and parameter servers for who sent what",
    )


def _disk(backends: Backends) -> Iterator[Finding]:
    home = backends.settings.home
    folder = home if home.exists() else home.anchor
    free = shutil.disk_usage(folder).free
    yield Finding(
        check="disk",
        level="ok" if free > _LOW_DISK_BYTES else "warning",
        found=f"{free / 2**30:.1f} GiB free at {folder}",
        hint="make room",
    )
