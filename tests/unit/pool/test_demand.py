"""How many workers each queue wants, from its jobs rather than from the length of its list."""

from dataclasses import replace

import pytest

from brokers.pool.live_job import LiveJob, Workload
from brokers.pool.node import Node
from brokers.pool.request import Request
from kubeml.pool.demand import capacity, queue_demands, wanted_by, wanted_workers

#: In the middle of a round of four slots: two at work, one dispatch on its way, one slot in.
JOB = LiveJob(
    id="j", state="RUN", device="cpu", want=4, slots=4, contributed=1, num_live=2, tickets=1
)


def node(name: str, *, role: str = "worker", device: str = "cpu", room: int = 0) -> Node:
    return Node(name=name, role=role, pid=1, device=device, host="h", at=0.0, room=room)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, 4),
        ({"contributed": 4}, 4),
        ({"num_live": 0, "tickets": 0}, 4),
        ({"num_live": 4, "tickets": 0}, 4),
        ({"want": 1}, 1),
        ({"max_workers": 3}, 3),
        ({"max_workers": 9}, 4),
        ({"state": "INIT", "want": 1, "slots": 1}, 1),
        ({"state": "VAL", "want": 2}, 2),
        ({"state": "PLAN"}, 4),
        ({"state": "END", "want": 0}, 4),
        ({"state": "END", "want": 0, "max_workers": 2}, 2),
        ({"is_stopping": True}, 0),
        ({"state": "DONE"}, 0),
        ({"state": "FAILED"}, 0),
        ({"state": ""}, 0),
        ({"state": "SLEEPING"}, 0),
    ],
    ids=lambda value: (
        ",".join(f"{k}={v}" for k, v in value.items()) or "running"
        if isinstance(value, dict)
        else None
    ),
)
def test_job_wants_a_worker_for_each_slot_it_can_train_now(
    changes: dict[str, object], wanted: int
) -> None:
    assert wanted_by(replace(JOB, **changes)) == wanted  # type: ignore[arg-type]


def test_queue_adds_up_its_own_jobs_and_the_requests_for_its_workers() -> None:
    jobs = [
        JOB,
        replace(JOB, id="k", max_workers=1, num_live=1),
        replace(JOB, id="g", device="gpu"),
    ]
    nodes = [node("a"), node("b"), node("c", role="control"), node("d", device="gpu")]

    cpu, gpu = queue_demands(Workload(jobs=jobs, nodes=nodes), {"cpu": 3})

    assert (cpu.queue, cpu.device) == ("kubeml.train.cpu", "cpu")
    assert (cpu.queued, cpu.running, cpu.wanted, cpu.workers) == (2 + 3, 3, 4 + 1 + 3, 2)
    assert (gpu.queued, gpu.running, gpu.wanted, gpu.workers) == (1, 2, 4, 1)


def test_metric_has_every_queue_so_that_an_autoscaler_can_go_down_to_zero() -> None:
    assert wanted_workers(queue_demands(Workload(jobs=[], nodes=[]), {})) == {
        "kubeml.train.cpu": 0, "kubeml.train.gpu": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("in_queue", "workers", "demand"),
    [
        (1, [""], (1, 0, 1)),  # waits
        (0, [""], (1, 0, 1)),  # a worker has taken it off the queue, and not said so yet
        (0, ["w"], (0, 1, 1)),  # it is being answered
        (1, ["w", ""], (1, 1, 2)),
        (2, [], (2, 0, 2)),  # whoever sent it does not wait any more
        (2, ["w"], (2, 1, 3)),
    ],
)
def test_request_wants_its_worker_until_it_is_answered(
    in_queue: int, workers: list[str], demand: tuple[int, int, int]
) -> None:
    requests = [Request(device="cpu", until=0.0, worker=worker) for worker in workers]
    now = Workload(jobs=[], nodes=[], requests=[*requests, Request(device="gpu", until=0.0)])

    cpu, _ = queue_demands(now, {"cpu": in_queue})

    assert (cpu.queued, cpu.running, cpu.wanted) == demand


def test_capacity_counts_what_would_be_started() -> None:
    nodes = [
        node("a"), node("g", device="gpu"), node("ps", role="ps"),
        node("supervisor", role="supervisor", room=3),
    ]  # fmt: skip

    assert (capacity(nodes, "cpu"), capacity(nodes, "gpu")) == (4, 1)
