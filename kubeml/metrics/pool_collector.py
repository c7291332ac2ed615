"""Metrics of the pool and its servers, read only when scraped: an idle stack does nothing for them.

Every parameter server exports the same values: take them by ``max``. If a server does not answer in
time, its own values are missing, and no others.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from brokers.messages.queues import DEVICES
from brokers.pool.live_job import LiveJob, Workload
from brokers.pool.reading import queue_lengths
from brokers.pool.refusals import refusals
from brokers.pool.workload import read_waiting, read_workload
from brokers.state.error_mapping import redis_errors
from kubeml.backends import Backends
from kubeml.metrics.background import BackgroundRead
from kubeml.metrics.families import counter, gauge
from kubeml.pool.demand import LIVE, WANTED_METRIC, QueueDemand, queue_demands, wanted_workers
from kubeml.pool.view import PoolView
from kubeml.pool.watch import PoolWatch

if TYPE_CHECKING:
    from redis import Redis

#: All servers together get this long. Prometheus itself waits for 10 s, unless told otherwise.
_WITHIN_S = 3.0

_ROLES = ("ps", "control", "worker")
_ACTIVITIES = ("init", "train", "validate", "wait", "idle")
_DOORS = ("message", "hint", "task", "contribution")


@dataclass(frozen=True, kw_only=True)
class ServerHealth:
    """The health of a Redis server.

    Attributes:
        answer_s: How long it took to answer.
        memory_bytes, limit_bytes: The memory it uses, and its limit; 0 if there is no limit.
        can_write: Whether its last attempt to write its file succeeded.
    """

    answer_s: float
    memory_bytes: int
    limit_bytes: int
    can_write: bool


@dataclass(frozen=True, kw_only=True)
class StateFacts:
    """What the state server tells about itself and the pool."""

    health: ServerHealth
    workload: Workload
    view: PoolView
    refused: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class BrokerFacts:
    """What the broker tells about itself and the queues."""

    health: ServerHealth
    queues: Mapping[str, int]
    waiting: Mapping[str, int]


class PoolCollector(Collector):
    """The pool as a whole."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._watch = PoolWatch(backends)
        self._state_read = BackgroundRead(self._read_state)
        self._broker_read = BackgroundRead(self._read_broker)
        self._s3_read = BackgroundRead(self._read_s3)

    def view(self) -> PoolView | None:
        """Return the pool now; None if the state server does not answer."""
        self._begin()
        seen = self._state_read.result(time.monotonic() + _WITHIN_S)
        return seen.view if seen else None

    def collect(self) -> Iterator[Metric]:
        """The families."""
        self._begin()
        deadline = time.monotonic() + _WITHIN_S
        state = self._state_read.result(deadline)
        broker = self._broker_read.result(deadline)
        s3_answer_s = self._s3_read.result(deadline)
        yield from _servers(state, broker, s3_answer_s)
        if state is not None:
            yield from _pool(state)
        if state is not None and broker is not None:
            # An unknown demand is not zero: an autoscaler goes by it.
            yield from _demand(queue_demands(state.workload, broker.waiting))
        if broker is not None:
            yield gauge(
                "kubeml_queue_messages",
                "Messages that wait in a queue of the broker",
                ("queue",),
                {(name,): n for name, n in broker.queues.items()},
            )

    def _begin(self) -> None:
        for read in (self._state_read, self._broker_read, self._s3_read):
            read.begin()

    def _read_state(self) -> StateFacts:
        state, where = self._backends.watch, self._backends.where
        return StateFacts(
            health=_health(state, where),
            workload=read_workload(state, where=where),
            view=self._watch.look(with_queues=False),
            refused=refusals(state),
        )

    def _read_broker(self) -> BrokerFacts:
        broker, where = self._backends.broker, self._backends.broker_where
        return BrokerFacts(
            health=_health(broker, where),
            queues=queue_lengths(broker, where=where),
            waiting=read_waiting(broker, where=where),
        )

    def _read_s3(self) -> float:
        started = time.perf_counter()
        self._backends.objects.require_bucket()
        return time.perf_counter() - started


def _health(client: "Redis", where: str) -> ServerHealth:
    with redis_errors(where):
        started = time.perf_counter()
        client.time()
        answer_s = time.perf_counter() - started
        info: Any = client.info()
    return ServerHealth(
        answer_s=answer_s,
        memory_bytes=int(info["used_memory"]),
        limit_bytes=int(info.get("maxmemory", 0)),
        can_write=info.get("aof_last_write_status", "ok") == "ok"
        and info.get("rdb_last_bgsave_status", "ok") == "ok",
    )


def _servers(
    state: StateFacts | None, broker: BrokerFacts | None, s3_answer_s: float | None
) -> Iterator[Metric]:
    redis = {"state": state.health if state else None, "broker": broker.health if broker else None}
    answers = {name: health.answer_s if health else None for name, health in redis.items()}
    answers["s3"] = s3_answer_s
    yield gauge(
        "kubeml_server_up",
        "Whether a server answers: state and broker (Redis), s3",
        ("server",),
        {(name,): float(s is not None) for name, s in answers.items()},
    )
    yield gauge(
        "kubeml_server_answer_seconds",
        "How long it takes to answer",
        ("server",),
        {(name,): seconds for name, seconds in answers.items()},
    )
    known = {name: health for name, health in redis.items() if health}
    yield gauge(
        "kubeml_server_memory_bytes",
        "Memory that a Redis server uses",
        ("server",),
        {(name,): health.memory_bytes for name, health in known.items()},
    )
    yield gauge(
        "kubeml_server_memory_limit_bytes",
        "Memory that it may use; 0: no limit",
        ("server",),
        {(name,): health.limit_bytes for name, health in known.items()},
    )
    yield gauge(
        "kubeml_server_can_write",
        "Whether it could write its file the last time",
        ("server",),
        {(name,): float(health.can_write) for name, health in known.items()},
    )


def _pool(state: StateFacts) -> Iterator[Metric]:
    jobs, nodes = state.workload.jobs, state.workload.nodes
    yield gauge(
        "kubeml_job_running_total",
        "Jobs under way, of all parameter servers",
        ("type",),
        {("train",): len(jobs)},
    )
    yield gauge("kubeml_jobs", "Jobs under way, by state", ("state",), _by_state(jobs))
    alive = Counter((node.role, node.device) for node in nodes if node.role in _ROLES)
    always: dict[tuple[str, ...], float | None] = {
        ("ps", "cpu"): 0,
        ("control", "cpu"): 0,
        ("worker", "cpu"): 0,
    }
    yield gauge("kubeml_nodes", "Processes of the pool", ("role", "device"), always | dict(alive))
    silent = Counter(node.role for node in state.workload.silent)
    yield gauge(
        "kubeml_nodes_silent",
        "Processes that went without a goodbye within the last hour",
        ("role",),
        {(role,): silent[role] for role in _ROLES},
    )
    doing = Counter((worker.device, worker.stage) for worker in state.view.workers)
    yield gauge(
        "kubeml_workers",
        "Training workers by what they do now",
        ("device", "stage"),
        {(device, stage): doing[device, stage] for device in DEVICES for stage in _ACTIVITIES},
    )
    yield counter(
        "kubeml_refused",
        "Refused at a door: messages, hints, tasks, contributions",
        ("door",),
        {(door,): state.refused.get(door, 0) for door in _DOORS},
    )


def _by_state(jobs: Sequence[LiveJob]) -> dict[tuple[str, ...], float | None]:
    states = Counter(job.state for job in jobs)
    return {(str(state),): states[state] for state in sorted(LIVE)}


def _demand(demands: Sequence[QueueDemand]) -> Iterator[Metric]:
    wanted = wanted_workers(demands)
    yield gauge(
        WANTED_METRIC,
        "Workers that could work now, those at work included",
        ("queue",),
        {(queue,): n for queue, n in wanted.items()},
    )
    yield gauge(
        "kubeml_queue_waiting",
        "Dispatches and inference requests that no worker has answered",
        ("queue",),
        {(demand.queue,): demand.queued for demand in demands},
    )
    yield gauge(
        "kubeml_queue_running_workers",
        "Workers at work for jobs",
        ("queue",),
        {(demand.queue,): demand.running for demand in demands},
    )
    yield gauge(
        "kubeml_queue_workers",
        "Workers there are",
        ("queue",),
        {(demand.queue,): demand.workers for demand in demands},
    )
