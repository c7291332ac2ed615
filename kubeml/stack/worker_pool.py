"""The embedded stack's training workers: as many as jobs want, between two bounds.

The supervisor calls it all the time; it reads the demand, and starts and ends workers by it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from brokers.pool.live_job import Workload
from brokers.pool.node import Node
from brokers.pool.presence import BEAT_EVERY_S, announce, withdraw
from brokers.pool.workload import busy_workers, read_waiting, read_workload
from brokers.settings import Settings
from brokers.state.connections import broker_client, watch_client
from kubeml.errors import KubemlError
from kubeml.pool.autoscaler import Autoscaler
from kubeml.pool.demand import queue_demands
from kubeml.stack.child import Child
from kubeml.stack.processes import kill_group

logger = logging.getLogger(__name__)

#: The demand is read this often: a few commands, well below a millisecond while there is no job.
_LOOK_EVERY_S = 0.5
#: Reading it never takes more than this share of the time, however many jobs there are.
_LOOKING_RATIO = 0.05

#: A server that did not answer is left alone for this long.
_AFTER_FAULT_S = 2.0

#: The name by which the supervisor announces how many workers it would start.
_NODE = "supervisor"


class WorkerPool:
    """Starts workers when jobs want them, and ends those that no job has wanted for a while.

    Args:
        settings: Where the servers are, the workers' device, and ``idle_s``.
        low, high: How many workers there are at least and at most.
        make: Makes the worker of a number; numbers begin at 1, and the lowest free one is used.
        drain_s: How long a worker gets to finish or hand back its slot.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        low: int,
        high: int,
        make: Callable[[int], Child],
        drain_s: float,
    ) -> None:
        self.low, self.high = low, high
        #: By number: the workers that are kept running, and the leaving ones with their deadlines.
        self._workers: dict[int, Child] = {}
        self._leaving: dict[int, tuple[Child, float]] = {}
        self._scaler = Autoscaler(low=low, high=high, idle_s=settings.idle_s)
        self._device = settings.device
        self._make, self._drain_s = make, drain_s
        self._state, self._broker = watch_client(settings), broker_client(settings)
        self._look_at = 0.0
        self._announced = (0.0, -1)

    @property
    def workers(self) -> list[Child]:
        """The workers that are to run."""
        return [self._workers[number] for number in sorted(self._workers)]

    @property
    def leaving(self) -> list[Child]:
        """The workers that were told to leave and still run."""
        return [child for child, _ in self._leaving.values()]

    def start(self) -> None:
        """Start as many workers as there are at least."""
        self._grow(self.low)

    def look(self) -> None:
        """Start and end workers as the demand asks; to be called every 0.1 s or so.

        Raises:
            OSError: No process can be started.
        """
        now = time.monotonic()
        self._reap(now)
        if now < self._look_at:
            return
        try:
            reading = read_workload(self._state)
            waiting = read_waiting(self._broker)
            self._scale(reading, waiting, now)
            self._announce(reading.nodes, now)
        except KubemlError as err:
            logger.warning("how many workers are wanted is not known: %s", err)
            self._scaler.goal(len(self._workers), now)
            self._look_at = time.monotonic() + _AFTER_FAULT_S
        else:
            took_s = time.monotonic() - now
            # The pool is as large as it will ever be: only readers want to hear of it now and then.
            is_settled = self.low == self.high and not self._announced[1]
            every_s = BEAT_EVERY_S if is_settled else _LOOK_EVERY_S
            self._look_at = now + max(every_s, took_s / _LOOKING_RATIO)

    def close(self) -> None:
        """Leave the pool, if the server still answers. The workers run on."""
        with suppress(KubemlError):
            withdraw(self._state, _NODE)
        self._state.close()
        self._broker.close()

    def _scale(self, reading: Workload, waiting: dict[str, int], now: float) -> None:
        demands = queue_demands(reading, waiting)
        wanted = next(demand.wanted for demand in demands if demand.device == self._device)
        goal = self._scaler.goal(wanted, now)
        if goal > len(self._workers):
            self._grow(goal, why=f"{wanted} wanted")
        elif goal < len(self._workers):
            busy = busy_workers(self._state, [job.id for job in reading.jobs])
            busy |= {request.worker for request in reading.requests}
            idle = [n for n in sorted(self._workers, reverse=True) if not self._works(n, busy)]
            for number in idle[: len(self._workers) - goal]:
                self._retire(number, now)

    def _works(self, number: int, busy: set[str]) -> bool:
        return self._workers[number].name in busy

    def _grow(self, goal: int, *, why: str = "at least") -> None:
        # A worker that is leaving keeps its number, and its place, until its end.
        free = (n for n in range(1, self.high + 1) if n not in self._workers | self._leaving)
        for number in list(free)[: goal - len(self._workers)]:
            child = self._make(number)
            child.start()
            self._workers[number] = child
            logger.info("%s started (%s)", child.name, why)

    def _retire(self, number: int, now: float) -> None:
        child = self._workers.pop(number)
        child.is_leaving = True
        if child.process is not None and child.is_up:
            child.process.terminate()
        self._leaving[number] = (child, now + self._drain_s)
        logger.info("%s is not needed any more", child.name)

    def _reap(self, now: float) -> None:
        for number, (child, deadline) in list(self._leaving.items()):
            if child.is_up and child.process is not None:
                if now > deadline:
                    kill_group(child.process.pid)
                continue
            child.note_end()
            del self._leaving[number]

    def _announce(self, nodes: Sequence[Node], now: float) -> None:
        """Announce how many more workers could be started, at each change and every two seconds."""
        there = {node.name for node in nodes}
        room = self.high - sum(child.name in there for child in self._workers.values())
        at, told = self._announced
        if room != told or now - at >= BEAT_EVERY_S:
            announce(self._state, _NODE, "supervisor", device=self._device, facts={"room": room})
            self._announced = (now, room)
