"""Case 24: contributions that are corrupt, not finite, too large, mis-shaped, or forged."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from brokers.rounds.answers import Work
from brokers.rounds.contribution import Contribution
from brokers.rounds.participation import Participation
from brokers.state.connections import state_client
from brokers.tensors.channel import TensorChannel
from brokers.tensors.reference import TensorRef
from brokers.wire import new_id
from kubeml.client.job import Job
from kubeml.errors import JobFailed
from kubeml.jobs.spec import State
from kubeml.weights.layout import Layout
from tests.eventually import eventually
from tests.faults.pool import FaultPool, failed_attempts


def test_case_24_corrupt_chunk(pool: FaultPool) -> None:
    victim = pool.start_victim("worker.chunk=corrupt@epoch=2,round=1,attempt=1")
    job = pool.submit()

    audit = pool.check(job)

    assert pool.has_fired(victim, "worker.chunk")
    assert {kind for *_, kind in failed_attempts(audit)} == {"bad"}
    assert "crc" in audit.epochs[1].failed[0].why


def test_case_24_weights_that_are_not_finite(pool: FaultPool) -> None:
    job = pool.submit("diverges")

    with pytest.raises(JobFailed, match="NaN or infinite"):
        job.wait(60)


def of_another_layout(_layout: Layout) -> dict[str, Any]:
    return {"layout": "0" * 64, "tensors": b"\0" * 100}


def of_another_size(layout: Layout) -> dict[str, Any]:
    return {"layout": layout.hash, "tensors": b"\0" * (layout.weights_bytes + 1)}


def without_tensors(layout: Layout) -> dict[str, Any]:
    return {"layout": layout.hash, "tensors": ""}


def of_chunks_that_are_not_there(layout: Layout) -> dict[str, Any]:
    size = layout.weights_bytes
    ref = TensorRef(key="kml:nowhere", num_chunks=1, num_bytes=size, crc=0)
    return {"layout": layout.hash, "tensors": ref.to_json()}


def of_enormous_tensors(layout: Layout) -> dict[str, Any]:
    ref = TensorRef(key="kml:nowhere", num_chunks=9, num_bytes=2**33, crc=0)
    return {"layout": layout.hash, "tensors": ref.to_json()}


def of_infinite_weights(layout: Layout) -> dict[str, Any]:
    infinity = b"\x00\x00\x80\x7f"  # float32, little-endian
    return {"layout": layout.hash, "tensors": infinity * (layout.weights_bytes // 4)}


def of_text_for_numbers(layout: Layout) -> dict[str, Any]:
    return {"layout": layout.hash, "tensors": "", "num_samples": "many", "worker": ["x"]}


def of_a_reference_that_is_none(layout: Layout) -> dict[str, Any]:
    return {"layout": layout.hash, "tensors": "{}", "optimizer": 7}


Forgery = Callable[[Layout], dict[str, Any]]
FORGERIES = [
    of_another_layout, of_another_size, without_tensors, of_chunks_that_are_not_there,
    of_enormous_tensors, of_infinite_weights, of_text_for_numbers, of_a_reference_that_is_none,
]  # fmt: skip


@pytest.mark.full
def test_case_24_forged_contributions(pool: FaultPool) -> None:
    pool.cluster.kill("control")
    jobs = [pool.submit(max_errors=99) for _ in FORGERIES]
    for job in jobs:
        eventually(lambda job=job: at_plan(job), within_s=20, what="initial weights")
    pool.cluster.kill("worker")
    pool.cluster.start_control()

    for job, forgery in zip(jobs, FORGERIES, strict=True):
        forge_slot_0(pool, job, forgery)
    # A new parameter server looks at everything that there is.
    pool.cluster.kill("ps")
    pool.cluster.start_ps()
    pool.cluster.start_worker("worker")

    for job, forgery in zip(jobs, FORGERIES, strict=True):
        failed = failed_attempts(pool.check(job))
        assert (1, 0, 0, "bad") in failed, forgery.__name__


def at_plan(job: Job) -> bool:
    return job.status().state is State.PLAN


def forge_slot_0(pool: FaultPool, job: Job, forgery: Forgery) -> None:
    """Take slot 0 of the first round as a worker would, and hand in something else."""
    client = state_client(pool.direct)
    store, channel = Participation(client, job.id), TensorChannel(client)
    eventually(lambda: store.head().state == "RUN", within_s=20, what="first epoch")
    origin = pool.client.backends.checkpoints.at(job.id, 0)
    assert origin is not None
    facts = forgery(origin.layout)
    if isinstance(facts["tensors"], bytes):
        facts["tensors"] = channel.push(store.key("c", new_id()), facts["tensors"]).to_json()
    token, ticket = new_id(), new_id()
    client.zadd(store.key("d"), {ticket: 0})
    work = store.take("1", token=token, ticket=ticket, stage="train", preferred=[0])
    assert isinstance(work, Work), work
    forged = json.loads(
        Contribution(
            cid=new_id(), token=token, slot=work.slot, worker="forger", attempt=work.attempt,
            num_samples=60,
        ).to_json()
    )  # fmt: skip
    answer = store._run(
        "contrib", "1", token, work.rid, work.slot, forged["cid"], json.dumps(forged | facts)
    )
    assert answer[0] == "OK"
    client.close()
