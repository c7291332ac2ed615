"""What must never get in: failed work, foreign messages, pickles."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from brokers.messages.dispatch import Dispatcher
from brokers.messages.hint import Hint
from brokers.messages.queues import PS_QUEUE, train_queue
from brokers.messages.topology import ps_queue
from brokers.rounds.index import JOBS_KEY
from brokers.state.connections import broker_client
from kubeml.client.client import Client
from tests.cluster import Cluster
from tests.eventually import eventually
from tests.integration.conftest import FUNCTIONS, Submit


def test_failed_attempt_is_trained_again_and_leaves_no_trace_in_the_weights(
    client: Client, submit: Submit, tmp_path: Path
) -> None:
    # In the original a function that failed was left out of the average.
    code = tmp_path / "code"
    code.mkdir()
    text = (FUNCTIONS / "flaky.py").read_text().replace("@MARKER@", str(tmp_path / "failed"))
    (code / "flaky.py").write_text(text)
    tiny = (FUNCTIONS / "tiny.py").read_text().split("def main")[0]
    (code / "tiny.py").write_text(tiny)
    client.functions.create("flaky", code, check=False)
    options: dict[str, Any] = {"epochs": 2, "k": 10, "parallelism": 2, "seed": 3}

    calm = submit(**options)
    calm_end = calm.wait(60)
    flaky = client.train("flaky", "points", batch_size=16, lr=0.05, static=True, **options)
    end = flaky.wait(60)

    assert (tmp_path / "failed").exists()
    assert [row.retries for row in flaky.history()] == [1, 0]
    assert any(
        event.kind == "retry" and "the cable came loose" in event.fields["why"]
        for event in flaky.events()
    )
    assert end.weights_sha256 == calm_end.weights_sha256
    audit = flaky.audit(verify=True)
    assert audit.is_exact
    (attempt,) = [attempt for epoch in audit.epochs for attempt in epoch.failed]
    assert (attempt.kind, attempt.attempt) == ("error", 1)
    assert "the cable came loose" in attempt.why


def test_loss_that_is_not_a_number_is_recorded_as_unknown(
    client: Client, submit: Submit, tmp_path: Path
) -> None:
    submit("tiny", epochs=1).wait(60)
    tiny = (FUNCTIONS / "tiny.py").read_text()
    code = tiny.replace("return loss.item()", 'return float("nan")')
    (tmp_path / "nanloss.py").write_text(code)
    client.functions.create("nanloss", tmp_path / "nanloss.py", check=False)

    job = client.train("nanloss", "points", epochs=2, batch_size=16, lr=0.05)

    assert job.wait(60).epoch == 2
    assert [row.train_loss for row in job.history()] == [None, None]
    assert job.history()[-1].accuracy is not None


def test_every_row_counts_once_in_the_ledger(client: Client, submit: Submit) -> None:
    job = submit(epochs=2, k=4, parallelism=3)
    job.wait(60)

    audit = job.audit(verify=True)

    assert [(e.counted_0, e.counted_1, e.counted_more) for e in audit.epochs] == [(0, 1200, 0)] * 2
    assert audit.is_exact
    assert [generation["why"] for generation in audit.generations] == ["submitted"]


def test_the_audit_sees_what_was_tampered_with(client: Client, submit: Submit) -> None:
    job = submit(epochs=1, k=4, parallelism=2)
    job.wait(60)
    key = f"history/{job.id}/ledger-000001.json"
    ledger = client.backends.objects.get_json(key)
    del ledger["rounds"]["1"]
    client.backends.objects.put_json(key, ledger)
    weights = client.backends.checkpoints.at(job.id, 1)
    assert weights is not None
    client.backends.objects.put(weights.weights.key, b"\0" * 64)

    audit = job.audit(verify=True)

    assert audit.epochs[0].counted_0 == 2 * 4 * 16
    assert any("corrupt" in fault for fault in audit.faults)
    assert not audit.is_exact


@pytest.mark.parametrize("queue", ["cpu", "ps"])
def test_pickled_message_is_refused_and_nobody_dies(
    cluster: Cluster, submit: Submit, tmp_path: Path, queue: str
) -> None:
    marker = tmp_path / "unpickled"
    dispatcher = Dispatcher(cluster.settings)
    target = ps_queue() if queue == "ps" else None
    with dispatcher.app.producer_or_acquire() as producer:
        producer.publish(
            _Bomb(marker),
            serializer="pickle",
            exchange=target.exchange if target else "kubeml",
            routing_key=PS_QUEUE if target else train_queue("cpu"),
            headers={"task": "kubeml.train", "id": "x", "lang": "py"},
        )
    dispatcher.close()

    end = submit(epochs=1).wait(60)

    assert end.epoch == 1
    assert not marker.exists()
    assert all(process.poll() is None for process in cluster.processes.values())


@pytest.mark.parametrize(
    "body", ["[]", "7", '{"job_id": "../x", "ticket": ""}', '{"job": 1}', '{"job_id": "gone-1"}']
)
def test_malformed_hint_is_dropped_and_the_next_is_served(
    cluster: Cluster, submit: Submit, body: str
) -> None:
    dispatcher = Dispatcher(cluster.settings)
    with dispatcher.app.producer_or_acquire() as producer:
        producer.publish(
            json.loads(body), serializer="json", exchange=ps_queue().exchange,
            routing_key=PS_QUEUE,
        )  # fmt: skip
    dispatcher.close()

    assert submit(epochs=1).wait(60).epoch == 1


def test_dispatch_of_an_unknown_or_ended_job_is_answered_by_leaving(
    cluster: Cluster, submit: Submit
) -> None:
    job = submit(epochs=1)
    job.wait(60)
    dispatcher = Dispatcher(cluster.settings)

    for job_id in ("nobody-knows", job.id):
        for stage in ("train", "validate"):
            dispatcher.stage(stage, Hint(job_id=job_id, ticket="t"), device="cpu", label="stray")
    dispatcher.close()

    broker = broker_client(cluster.settings)
    eventually(
        lambda: broker.llen(train_queue("cpu")) == 0, within_s=20, what="empty queue of workers"
    )
    assert submit(epochs=1).wait(60).epoch == 1
    assert [row.epoch for row in job.history()] == [1]


def test_live_job_without_a_record_is_left_alone(cluster: Cluster, submit: Submit) -> None:
    # Looked for again at every tick it kept the parameter server and S3 busy.
    redis = cluster.client.backends.redis
    redis.sadd(JOBS_KEY, "stray")
    said = "job stray has no record"
    eventually(lambda: said in cluster.log("ps"), within_s=10, what="word of the stray job")

    submit(epochs=2).wait(60)  # several ticks

    assert cluster.log("ps").count(said) == 1
    redis.srem(JOBS_KEY, "stray")


def test_no_key_is_ever_searched_for(cluster: Cluster, submit: Submit) -> None:
    # The original listed the whole store with KEYS for every job.
    broker = broker_client(cluster.settings)
    broker.config_resetstat()
    submit(epochs=1).wait(60)

    stats: Any = broker.info("commandstats")

    assert "cmdstat_evalsha" in stats
    assert {"cmdstat_keys", "cmdstat_scan", "cmdstat_flushall"} & set(stats) == set()


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return shutil.copyfile, (__file__, str(self.marker))
