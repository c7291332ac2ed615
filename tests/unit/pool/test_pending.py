"""Why a job waits, in words; and when it does not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from brokers.pool.live_job import LiveJob
from brokers.pool.node import Node
from kubeml.pool.pending import Staffing, why_pending

WAITING = LiveJob(id="j", state="RUN", device="cpu", want=2, slots=2)


def view(
    *, cpu: int = 2, gpu: int = 0, busy: int = 0, room: int = 0, control: int = 1, servers: int = 1
) -> Staffing:
    return Staffing(
        workers={"cpu": cpu, "gpu": gpu}, busy={"cpu": busy}, room={"cpu": room},
        num_control=control, num_servers=servers,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "pool", "why"),
    [
        ({"device": "gpu"}, view(), "no gpu worker in the pool (2 cpu workers)"),
        ({"device": "gpu"}, view(cpu=1), "no gpu worker in the pool (1 cpu worker)"),
        (
            {"device": "gpu"},
            view(cpu=0, room=2),
            "no gpu worker in the pool (0 cpu workers, more on demand)",
        ),
        ({}, view(cpu=0, gpu=3), "no cpu worker in the pool (3 gpu workers)"),
        (
            {"device": "gpu"},
            view(cpu=0),
            "no worker in the pool: start one with kubeml worker --device gpu",
        ),
        ({}, view(busy=2), "waits for a free worker (2 busy with other jobs)"),
        ({}, view(busy=2, room=1), "a worker is being started (2 busy with other jobs)"),
        ({}, view(cpu=0, room=1), "a worker is being started"),
        ({"state": "INIT", "want": 1}, view(cpu=0, room=1), "a worker is being started"),
        ({"state": "VAL"}, view(busy=3), "waits for a free worker (3 busy with other jobs)"),
        ({}, view(servers=0), "no parameter server in the pool: start one with kubeml ps"),
        (
            {"state": "PLAN"},
            view(control=0),
            "no control worker in the pool plans its next epoch: start one with kubeml control",
        ),
        ({}, view(busy=1), ""),
        ({}, view(control=0), ""),
        ({"num_live": 1}, view(cpu=0), ""),
        ({"contributed": 2}, view(cpu=0), ""),
        ({"state": "PLAN"}, view(cpu=0), ""),
        ({"state": "END"}, view(cpu=0), ""),
        ({"is_stopping": True}, view(cpu=0), ""),
        ({"state": "DONE"}, view(cpu=0), ""),
        ({"state": ""}, view(cpu=0), ""),
        ({"state": "SLEEPING"}, view(cpu=0), ""),
    ],
)
def test_job_says_why_nobody_works_for_it(
    changes: dict[str, object], pool: Staffing, why: str
) -> None:
    assert why_pending(replace(WAITING, **changes), lambda: pool) == why  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"num_live": 1}, {"state": "DONE"}, {"state": ""}])
def test_pool_is_not_read_for_a_job_that_answers_for_itself(changes: dict[str, object]) -> None:
    read: list[str] = []
    ask: Callable[[], Staffing] = lambda: read.append("pool") or view()  # type: ignore[func-returns-value]  # noqa: E731

    why_pending(replace(WAITING, **changes), ask)  # type: ignore[arg-type]

    assert read == []


def test_view_counts_workers_and_those_at_work_by_device() -> None:
    jobs = [replace(WAITING, num_live=2), replace(WAITING, id="k", device="gpu", num_live=1)]
    nodes = [
        Node(name=name, role=role, pid=1, device=device, host="h", at=0.0, room=room)
        for name, role, device, room in (
            ("a", "worker", "cpu", 0), ("b", "worker", "cpu", 0), ("g", "worker", "gpu", 0),
            ("c", "control", "cpu", 0), ("p", "ps", "cpu", 0), ("s", "supervisor", "cpu", 2),
        )
    ]  # fmt: skip

    seen = Staffing.of(jobs, nodes)

    assert (seen.workers, seen.busy) == ({"cpu": 2, "gpu": 1}, {"cpu": 2, "gpu": 1})
    assert seen.room["cpu"] == 2
    assert (seen.num_control, seen.num_servers) == (1, 1)
