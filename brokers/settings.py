"""Where kubeml's servers are, and its tunables.

Precedence: flag > environment > kubeml.toml > profile > default.

This is the only module that reads the environment. The *profile* is the file that ``kubeml up``
writes into ``KUBEML_HOME`` for the stack it runs, so that every other command finds the stack by
itself.
"""

import difflib
import json
import math
import os
import re
import sysconfig
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from brokers.errors import InvalidSetting
from brokers.urls import check_url

PROFILE_NAME = "profile.json"
CONFIG_NAME = "kubeml.toml"

_CHOICES = {
    "device": ("cpu", "gpu"),
    "log_format": ("text", "json"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
}
#: The bucket names that an S3 client accepts.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:\S+")


class Secret(str):
    """A string that does not show itself in logs and reprs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting of kubeml.

    Attributes:
        home: Directory of the embedded stack, its data, logs and profile.
        broker_url: Redis URL of the Celery and kombu broker.
        state_url: Redis URL of the state server; the broker's unless set.
        s3_endpoint_url: S3 endpoint; empty means the cloud's own, by the AWS variables.
        s3_bucket: Bucket that holds functions, datasets, checkpoints and histories.
        s3_access_key, s3_secret_key: Read from the profile alone. Without them boto3 looks for
            credentials in its own places.
        cache_dir: Workers' shard and function cache.
        cache_bytes: Upper bound of that cache, in bytes.
        device: ``cpu`` or ``gpu``: the device that this worker declares.
        slots_per_gpu: Worker processes that share one GPU.
        worker_name: Name of this worker, unique in the pool; empty: made from host and pid.
        torch_threads: Threads per worker on CPU. A fixed number, since it may change the bits.
        lease_s: How long a slot stays with a worker that does not beat.
        stall_s: A function hangs if it finishes no batch for this long (or for 20 times as long
            as batches usually take).
        memory_bytes: A worker process that holds more is replaced by a fresh one once its slot's
            round is done; 0: the bound is what it may use, see ``kubeml.machine.memory_limit``.
        tick_s: How often the parameter server compares desired with actual.
        idle_s: How long ``kubeml up`` keeps unwanted workers above its minimum.
        log_level: Level of the log lines on stderr.
        log_format: ``text`` or ``json``: the form of the log lines.
        metrics_port: The port where this process serves Prometheus metrics; 0: nowhere. For
            ``kubeml up`` it is the first of several: parameter server, control worker, workers.
        metrics_host: The address it binds for metrics.
        metrics_keep_s: How long a job's series stay after the job has left.
        flower_auth: ``USER:PASSWORD`` that Flower asks for; several are separated by commas.
        fail: Fail points to arm, for tests of recovery; see ``brokers.fail_points``.
    """

    home: Path
    broker_url: Secret = Secret("redis://127.0.0.1:6379/0")
    state_url: Secret = Secret("")
    s3_endpoint_url: str = ""
    s3_bucket: str = "kubeml"
    s3_access_key: Secret = Secret("")
    s3_secret_key: Secret = Secret("")
    cache_dir: Path = field(default=Path())
    cache_bytes: int = 10 * 2**30
    device: str = "cpu"
    slots_per_gpu: int = 1
    worker_name: str = ""
    torch_threads: int = 1
    lease_s: float = 6.0
    stall_s: float = 60.0
    memory_bytes: int = 0
    tick_s: float = 0.5
    idle_s: float = 10.0
    log_level: str = "INFO"
    log_format: str = "text"
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    metrics_keep_s: float = 300.0
    flower_auth: Secret = Secret("")
    fail: str = ""

    def __post_init__(self) -> None:
        if not self.state_url:
            object.__setattr__(self, "state_url", self.broker_url)
        if self.cache_dir == Path():
            object.__setattr__(self, "cache_dir", self.home / "cache")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                fault = f"{getattr(self, name)!r}, expected {' or '.join(choices)}"
                raise InvalidSetting(setting=name, fault=fault)
        if not 0 <= self.metrics_port <= 65535:
            raise InvalidSetting(
                setting="metrics_port", fault=f"{self.metrics_port} is not a port, nor 0 for none"
            )
        for name in (
            "lease_s",
            "stall_s",
            "tick_s",
            "idle_s",
            "cache_bytes",
            "torch_threads",
            "slots_per_gpu",
            "metrics_keep_s",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidSetting(
                    setting=name, fault=f"{value}, must be more than zero and finite"
                )
        # Messages go to the broker through kombu, which names a socket differently.
        check_url("broker_url", self.broker_url, {"redis", "rediss"})
        check_url("state_url", self.state_url, {"redis", "rediss", "unix"})
        if self.s3_endpoint_url:
            check_url("s3_endpoint_url", self.s3_endpoint_url, {"http", "https"})
        if not _BUCKET.fullmatch(self.s3_bucket):
            raise InvalidSetting(
                setting="s3_bucket",
                fault=f"{self.s3_bucket!r}, expected a name of letters, digits, '.', '_' and '-'",
            )

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> Self:
        """Read the settings.

        Args:
            overrides: Values from flags, by field name; None values are skipped.
            environ: The environment; the process's own unless given.
            directory: Where to look for ``kubeml.toml`` first (then in the home).

        Raises:
            InvalidSetting: A name is unknown, or a value or a file cannot be read.
        """
        environ = os.environ if environ is None else environ
        flags = {k: v for k, v in (overrides or {}).items() if v is not None}
        home = find_home(flags.get("home"), environ=environ)
        profile = _from_profile(home / PROFILE_NAME)
        merged: dict[str, Any] = dict(profile)
        merged.update(_from_toml([(directory or Path.cwd()) / CONFIG_NAME, home / CONFIG_NAME]))
        merged.update(_from_environ(environ))
        merged.update(flags)
        if merged.get("s3_endpoint_url") != profile.get("s3_endpoint_url"):
            # It is not the embedded S3: its keys come from the AWS variables.
            merged.pop("s3_access_key", None)
            merged.pop("s3_secret_key", None)
        if merged.get("broker_url") != profile.get("broker_url") and (
            merged.get("state_url") == profile.get("state_url")
        ):
            # It is not the embedded broker: the state is there, too, unless told otherwise.
            merged.pop("state_url", None)
        merged["home"] = home
        if "broker_url" in merged and "state_url" not in merged:
            merged["state_url"] = merged["broker_url"]
        try:
            return cls(**{name: _parse(name, value) for name, value in merged.items()})
        except InvalidSetting as err:
            variable = f"KUBEML_{err.setting.upper()}"
            if environ.get(variable) and err.setting not in flags:
                err.hint = f"it comes from {variable}"
            raise

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def environment(self) -> dict[str, str]:
        """The ``KUBEML_*`` variables that give a child process these settings."""
        return {
            f"KUBEML_{f.name.upper()}": str(getattr(self, f.name))
            for f in fields(self)
            if f.name not in {"s3_access_key", "s3_secret_key", "flower_auth", "worker_name"}
            and str(getattr(self, f.name))
        }


def find_home(given: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Path:
    """Return the home by flag, environment or default. To stop a stack, that suffices.

    Args:
        given: The value of the flag, if it was given.
        environ: The environment; the process's own unless given.
    """
    environ = os.environ if environ is None else environ
    return Path(given or environ.get("KUBEML_HOME") or Path.home() / ".kubeml").absolute()


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the whole environment that gives a child process these settings, S3 keys included.

    Start the child with ``-P``: a ``tasks.py`` in the current folder must not be taken for ours.
    """
    env = {**os.environ, **settings.environment()}
    root = str(Path(__file__).parents[1])
    if root not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        # kubeml may run from a checkout: a child in another folder must find it as well.
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [root, env.get("PYTHONPATH")]))
    if settings.s3_access_key:
        env["AWS_ACCESS_KEY_ID"] = settings.s3_access_key
        env["AWS_SECRET_ACCESS_KEY"] = settings.s3_secret_key
    return env


def secrets_of(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the passwords and keys that this process knows, which no log line may show.

    Args:
        settings: Its settings.
        environ: The environment; the process's own unless given.
    """
    environ = os.environ if environ is None else environ
    passwords = [urlsplit(url).password or "" for url in (settings.broker_url, settings.state_url)]
    keys = [environ.get(name, "") for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    found = {*passwords, *map(unquote, passwords), *keys, str(settings.s3_secret_key)}
    return sorted((secret for secret in found if secret), key=len, reverse=True)


def _bytes_or_0(value: Any) -> int:
    count = int(value)
    if count < 0:
        raise ValueError(value)
    return count


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "home": Path,
    "cache_dir": Path,
    "broker_url": Secret,
    "state_url": Secret,
    "s3_access_key": Secret,
    "s3_secret_key": Secret,
    "flower_auth": Secret,
    "cache_bytes": int,
    "memory_bytes": _bytes_or_0,
    "torch_threads": int,
    "slots_per_gpu": int,
    "lease_s": float,
    "stall_s": float,
    "tick_s": float,
    "idle_s": float,
    "metrics_port": int,
    "metrics_keep_s": float,
    "log_level": lambda value: str(value).upper(),
}
_EXPECTED = {int: "a whole number", _bytes_or_0: "a number of bytes", float: "a number of seconds"}


def _parse(name: str, value: Any) -> Any:
    known = [f.name for f in fields(Settings)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        fault = f"unknown; did you mean {near[0]!r}?" if near else "unknown"
        raise InvalidSetting(setting=name, fault=fault)
    parser = _PARSERS.get(name, str)
    try:
        return parser(value)
    except (TypeError, ValueError, OverflowError) as err:
        fault = f"cannot read {value!r}, expected {_EXPECTED.get(parser, 'a text')}"
        raise InvalidSetting(setting=name, fault=fault) from err


def _from_profile(path: Path) -> dict[str, Any]:
    try:
        profile = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise InvalidSetting(setting=str(path), fault=str(err)) from err
    except (ValueError, RecursionError) as err:
        raise _damaged(path, str(err)) from err
    settings = profile.get("settings", {}) if isinstance(profile, dict) else None
    if not isinstance(settings, dict):
        raise _damaged(path, "it holds no settings")
    return settings


def _damaged(profile: Path, fault: str) -> InvalidSetting:
    return InvalidSetting(
        setting=str(profile),
        fault=f"the file is damaged: {fault}",
        hint="kubeml down, then up again writes it anew; delete it if no stack runs here",
    )


def _from_toml(paths: list[Path]) -> dict[str, Any]:
    for path in paths:
        try:
            return dict(tomllib.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as err:
            raise InvalidSetting(setting=str(path), fault=str(err)) from err
    return {}


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    # Unknown KUBEML_* names are left alone: other tools and fail points live there too.
    names = {f"KUBEML_{f.name.upper()}": f.name for f in fields(Settings) if f.name != "home"}
    secret = {"s3_access_key", "s3_secret_key"}
    return {
        names[key]: value
        for key, value in environ.items()
        if key in names and value and names[key] not in secret
    }
