"""The deployment files, as their tools see them: rendered, and with what they say of containers."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from brokers.settings import Settings
from kubeml.ops.access import RedisServer, write_access

ROOT = Path(__file__).parents[1]

#: Variables that a container of ours may be given: settings, and what boto3 and Go read.
KNOWN = {*(f"KUBEML_{name.upper()}" for name in Settings.__dataclass_fields__)} | {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOMEMLIMIT",
}  # fmt: skip

Manifest = dict[str, Any]


def schema(name: str) -> Any:
    """A JSON schema kept with the tests."""
    return json.loads((ROOT / "tests" / "schemas" / f"{name}.json").read_text())


def compose() -> Any:
    """docker-compose.yml, merge keys resolved."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def render(overlay: str, folder: Path) -> list[Manifest]:
    """What ``kubectl apply -k`` would send, with fresh credentials where the overlay brings them.

    Args:
        overlay: Its name.
        folder: An empty one.
    """
    shutil.copytree(ROOT / "k8s", folder / "k8s", ignore=shutil.ignore_patterns("access"))
    write_access(
        folder / "k8s" / "overlays" / "dev" / "access",
        broker=RedisServer(host="kubeml-valkey", port=6379), bucket="kubeml", replace=False,
        s3_url="http://kubeml-s3:8333",
    )  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("kubectl"), "kustomize", f"k8s/overlays/{overlay}"],
        cwd=folder, capture_output=True, text=True, check=False, env={"HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # kustomize warns of fields that it will drop.
    assert done.stderr == ""
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Any, Any]]:
    """Of each Deployment and StatefulSet its name, its pod's spec and the container."""
    for manifest in of_kind(manifests, "Deployment", "StatefulSet"):
        spec = manifest["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        yield manifest["metadata"]["name"], spec, container


def image(variant: str) -> str:
    """The image of this tree's version, as the Dockerfile says to name it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return f"kubeml:{project['version']}-{variant}"


@lru_cache(maxsize=1)
def constraints() -> dict[str, str]:
    """The versions that the project is tested with."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)
