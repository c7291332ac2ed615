"""The embedded stack's training workers: as many as are wanted, between two bounds."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from brokers.pool.node import Node
from brokers.pool.presence import BEAT_EVERY_S, announce, withdraw
from brokers.pool.workload import Workload, busy_workers, read_waiting, read_workload
from brokers.settings import Settings
from brokers.state.connections import broker_client, watch_client
from kubeml.errors import KubemlError
from kubeml.pool.autoscaler import Autoscaler
from kubeml.pool.demand import queue_demands
from kubeml.stack.child import Child
from kubeml.stack.processes import kill_group

logger = logging.getLogger(__name__)

#: How often the demand is read: a few commands, well below a millisecond while nothing is to do,
_LOOK_EVERY_S = 0.5
#: and never for more than this share of the time, however many jobs there are.
_LOOKING_RATIO = 0.05

#: A server that did not answer is left alone for so long.
_AFTER_FAULT_S = 2.0

#: The name by which the supervisor announces how many workers it would start.
_NODE = "supervisor"


class WorkerPool:
    """Starts workers when jobs want them, and sends those away that nobody has wanted for a while.

    Args:
        settings: Where the servers are, the workers' device, and ``idle_s``.
        low, high: How many workers at least and at most.
        make: Makes the worker of a number from 1; the lowest free one is used.
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
        #: Those that are kept running, by number; and those on their way out, with their deadlines.
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
        """Those that were told to go and have not gone yet."""
        return [child for child, _ in self._leaving.values()]

    def start(self) -> None:
        """Start as many as there are to be at any time."""
        self._grow(self.low)

    def look(self) -> None:
        """Start and send away what the demand asks for; call it every 0.1 s or so.

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
            # All there that ever will be: readers alone want to hear of it now and then.
            is_settled = self.low == self.high and not self._announced[1]
            every_s = BEAT_EVERY_S if is_settled else _LOOK_EVERY_S
            self._look_at = now + max(every_s, took_s / _LOOKING_RATIO)

    def close(self) -> None:
        """Say goodbye to the pool, as far as the server still answers; the workers run on."""
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
        # Who is on his way out still has his number, and his place.
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
        """Tell readers how many more would be started, at every change and every two seconds."""
        there = {node.name for node in nodes}
        room = self.high - sum(child.name in there for child in self._workers.values())
        at, told = self._announced
        if room != told or now - at >= BEAT_EVERY_S:
            announce(self._state, _NODE, "supervisor", device=self._device, facts={"room": room})
            self._announced = (now, room)
