"""A pool whose every part can be made to fail, and what must hold of a job whatever failed."""

import itertools
from pathlib import Path
from typing import Any

from brokers.settings import Settings
from brokers.state.connections import state_client
from kubeml.analysis.audit import JobAudit
from kubeml.client.client import Client
from kubeml.client.job import Job
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.faults.s3_proxy import S3Proxy
from tests.faults.servers import S3Server, ValkeyServer
from tests.faults.tcp_proxy import TcpProxy
from tests.integration.conftest import put_function, put_points

#: 3 slots of 200 rows: 4 rounds of 6 batches (the last one shorter), about 1 s an epoch.
OPTIONS: dict[str, Any] = {
    "epochs": 2, "batch_size": 10, "lr": 0.05, "parallelism": 3, "static": True, "k": 6,
    "optimizer_state": "carry",
    # A copy comes before the lease has run out. Same-bits tests and chaos have copies.
    "hedge": False,
}  # fmt: skip
ROUNDS = 4

_PROGRESS = {"init", "epoch", "round", "validated", "checkpoint", "end"}


class FaultPool:
    """Broker, state server and S3 server behind proxies; one of each process in good health."""

    HEALTHY = ("ps", "control", "worker")

    def __init__(self, folder: Path) -> None:
        self.broker = ValkeyServer(folder / "broker")
        self.state = ValkeyServer(folder / "state")
        self.s3 = S3Server(folder / "s3")
        self.servers = (self.broker, self.state, self.s3)
        self.broker_link = TcpProxy(self.broker.plan.valkey_port)
        self.state_link = TcpProxy(self.state.plan.valkey_port)
        self.s3_link = S3Proxy(self.s3.port)
        self._names = itertools.count(1)
        self.folder = folder
        home = folder / "home"
        #: How tests look in, past every proxy.
        self.direct = self.s3.plan.settings(Settings(home=home)).with_changes(
            broker_url=self.broker.url, state_url=self.state.url, lease_s=2.0
        )
        self.client = Client(self.direct)
        self.cluster = Cluster(self.linked())
        self.calm_sha256 = ""

    def linked(self, *, broker: TcpProxy | None = None, state: TcpProxy | None = None) -> Settings:
        """Settings of the pool's processes, which go through the proxies."""
        broker, state = broker or self.broker_link, state or self.state_link
        return self.direct.with_changes(
            broker_url=_through(self.direct.broker_url, broker.port),
            state_url=_through(self.direct.state_url, state.port),
            s3_endpoint_url=f"http://127.0.0.1:{self.s3_link.port}",
        )

    def start(self) -> None:
        """Start everything, and train once without a fault."""
        for server in self.servers:
            server.start()
        self.client.backends.objects.ensure_bucket()
        put_points(self.client, rows=600)
        self.heal()
        self.calm_sha256 = self.submit().wait(60).weights_sha256

    def heal(self) -> None:
        """Proxies without faults, one healthy process of each kind and nothing else."""
        for link in (self.broker_link, self.state_link, self.s3_link):
            link.heal()
        for server in self.servers:
            if not server.is_up:
                server.start()
        for name, process in list(self.cluster.processes.items()):
            if name not in self.HEALTHY or process.poll() is not None:
                self.cluster.kill(name)
        if "ps" not in self.cluster.processes:
            self.cluster.start_ps()
        if "control" not in self.cluster.processes:
            self.cluster.start_control()
        if "worker" not in self.cluster.processes:
            self.cluster.start_worker("worker", wait=False)
        for name in ("control", "worker"):
            self.cluster.wait_for(name)

    def close(self) -> None:
        """End everything."""
        self.cluster.close()
        self.client.close()
        for link in (self.broker_link, self.state_link, self.s3_link):
            link.close()
        for server in self.servers:
            server.stop()

    # -- jobs --------------------------------------------------------------------------------

    def submit(
        self, function: str = "slow", *, dataset: str = "points", lease_s: float = 2.0,
        **changes: Any,
    ) -> Job:  # fmt: skip
        """Submit a job of the usual shape."""
        folder = self.folder / "code" / function
        folder.mkdir(parents=True, exist_ok=True)
        put_function(self.client, function, folder)
        with_lease = Client(self.direct.with_changes(lease_s=lease_s))
        job = with_lease.train(function, dataset, **(OPTIONS | changes))
        with_lease.close()
        return self.client.job(job.id)

    def version(self, job: Job) -> int:
        """Number of the last merged weights."""
        client = state_client(self.direct)
        try:
            return int(client.hget(f"kml:{{{job.id}}}:h", "ver") or 0)  # type: ignore[arg-type]
        finally:
            client.close()

    def wait_for_progress(self, job: Job, *, beyond: int, within_s: float) -> None:
        """Wait until more has been merged."""
        eventually(
            lambda: self.version(job) > beyond or job.status().state.is_final,
            within_s=within_s, what=f"merge of {job.id} beyond version {beyond}",
        )  # fmt: skip

    # -- processes that fail -----------------------------------------------------------------

    def start_victim(self, fail: str, **env: str) -> str:
        """A further worker with fail points; returns its name."""
        name = f"victim-{next(self._names)}"
        self.cluster.start_worker(name, env={"KUBEML_FAIL": fail, **env})
        return name

    def replace_ps(self, fail: str) -> str:
        """Let a parameter server with fail points take the healthy one's place."""
        self.cluster.kill("ps")
        name = f"ps-victim-{next(self._names)}"
        self.cluster.start_ps(name, env={"KUBEML_FAIL": fail})
        return name

    def replace_control(self, fail: str) -> str:
        """Let a control worker with fail points take the healthy one's place."""
        self.cluster.kill("control")
        name = f"control-victim-{next(self._names)}"
        self.cluster.start_control(name, env={"KUBEML_FAIL": fail})
        self.cluster.wait_for(name)
        return name

    def has_fired(self, name: str, point: str) -> bool:
        """Whether a process has reached its fail point."""
        return f"fail point {point}" in self.cluster.log(name)

    def wait_for_fire(self, name: str, point: str, *, within_s: float = 30) -> None:
        """Wait until a process has reached its fail point."""
        eventually(
            lambda: self.has_fired(name, point), within_s=within_s, what=f"{point} in {name}"
        )

    # -- what must hold ----------------------------------------------------------------------

    def check(self, job: Job, *, within_s: float = 60) -> JobAudit:
        """The job ends as if nothing had happened: I1, I2, I5 and I8."""
        end = job.wait(within_s)
        assert end.weights_sha256 == self.calm_sha256, "other bits than without the fault"
        assert [row.epoch for row in job.history()] == [1, 2]
        audit = job.audit(verify=True)
        assert audit.is_exact, audit.all_faults
        self.check_nothing_left(job)
        return audit

    def check_nothing_left(self, job: Job) -> None:
        """I6: every key of an ended job goes away by itself."""
        client = state_client(self.direct)

        def is_left_to_expire() -> bool:
            keys = client.scan_iter(f"kml:{{{job.id}}}:*", count=1000)
            return all(client.ttl(key) != -1 for key in keys)

        # Its end is written first, and known to us then.
        eventually(is_left_to_expire, within_s=10, what="end without keys that stay for ever")
        client.close()


def longest_pause(job: Job, *, since: str = "0") -> float:
    """Longest time without progress between two events of an ended job, in seconds.

    Args:
        job: The job.
        since: Id of the event that it is counted from.
    """
    events = [event for event in job.events() if event.kind in _PROGRESS]
    times = [event.at for event in events if _order(event.id) >= _order(since)]
    return max(late - early for early, late in itertools.pairwise(times))


def failed_attempts(audit: JobAudit) -> list[tuple[int, int, int, str]]:
    """(epoch, round, slot, kind) of every attempt that came to nothing."""
    return [(e.epoch, a.round, a.slot, a.kind) for e in audit.epochs for a in e.failed]


def _order(event_id: str) -> list[int]:
    return [int(part) for part in event_id.split("-")]


def _through(url: str, port: int) -> Any:
    from urllib.parse import urlsplit

    from brokers.settings import Secret

    parts = urlsplit(url)
    return Secret(parts._replace(netloc=f":{parts.password}@127.0.0.1:{port}").geturl())
