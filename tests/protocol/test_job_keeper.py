"""What a parameter server's keeper does for a job that was resumed, on real servers, no workers."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from brokers.messages.dispatch import Dispatcher
from brokers.messages.queues import CONTROL_QUEUE
from brokers.objects.store import ObjectStore
from brokers.rounds.answers import Work
from brokers.rounds.head import Head
from brokers.rounds.index import ENDED_KEY, JOBS_KEY, ended_jobs, live_jobs
from brokers.rounds.participation import Participation
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.store import RoundStore
from brokers.settings import Settings
from kubeml.backends import Backends
from kubeml.client.client import Client
from kubeml.errors import Conflict
from kubeml.jobs.spec import State
from kubeml.metrics.job_books import JobBooks
from kubeml.server.dispatch_watch import DispatchWatch
from kubeml.server.keeper import JobKeeper
from kubeml.server.services import Services
from kubeml.server.sharing import Sharing
from tests.cluster import on_database
from tests.jobs import make_end, make_spec
from tests.protocol.test_checkpoints import make


@pytest.fixture
def settings(s3_settings: Settings, pool_client: Redis, job_id: str) -> Settings:
    """An empty database and an empty bucket."""
    settings = on_database(s3_settings, 14).with_changes(s3_bucket=job_id)
    ObjectStore(settings).ensure_bucket()
    return settings


@pytest.fixture
def client(settings: Settings, job_id: str) -> Iterator[Client]:
    """With the record of a job, of which the live state knows nothing."""
    with Client(settings) as client:
        client.backends.records.create(make_spec(job_id))
        yield client


@pytest.fixture
def dispatcher(settings: Settings) -> Dispatcher:
    return Dispatcher(settings)


@pytest.fixture
def keeper(settings: Settings, client: Client, job_id: str) -> JobKeeper:
    backends = Backends(settings)
    services = Services(
        backends=backends, sharing=Sharing(backends.redis), name="test", books=JobBooks(60.0)
    )
    return JobKeeper(job_id, services)


@pytest.fixture
def plans_asked(pool_client: Redis) -> Callable[[], int]:
    """How many requests for a plan wait for a control worker."""
    return lambda: int(pool_client.llen(CONTROL_QUEUE))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [State.INIT, State.PLAN])
def test_a_job_that_was_rebuilt_is_planned_at_once(
    client: Client, keeper: JobKeeper, plans_asked: Callable[[], int], job_id: str, state: State
) -> None:
    if state is State.PLAN:
        client.backends.checkpoints.publish(make(client.backends.checkpoints, job_id, 0), 1)

    keeper.reconcile(is_tick=False)

    assert client.job(job_id).status().state is state
    assert plans_asked() == 1


def test_a_job_that_was_resumed_while_its_end_was_written_is_under_way_and_on_the_list(
    client: Client, monkeypatch: pytest.MonkeyPatch, job_id: str
) -> None:
    # A parameter server has written the end, and now takes the job off the list.
    client.backends.objects.put_json(f"jobs/{job_id}/end.json", make_end(job_id).to_wire())
    put = ObjectStore.put_json

    def put_late(self: ObjectStore, key: str, *args: Any, **options: Any) -> Any:
        if key.endswith("spec-000001.json"):
            client.backends.records.set_end(job_id, 0, make_end(job_id), [])
            assert client.backends.records.active() == []
        return put(self, key, *args, **options)

    monkeypatch.setattr(ObjectStore, "put_json", put_late)

    client.job(job_id).resume(epochs=3)

    assert client.backends.records.end(job_id) is None
    assert client.backends.records.active() == [job_id]


def test_a_job_that_is_resumed_while_a_late_server_takes_it_off_the_list_stays_there(
    client: Client, keeper: JobKeeper, monkeypatch: pytest.MonkeyPatch, job_id: str
) -> None:
    client.backends.records.set_end(job_id, 0, make_end(job_id), [])
    delete = ObjectStore.delete

    def delete_late(self: ObjectStore, keys: Any) -> Any:
        if f"active/{job_id}" in (keys := list(keys)):
            client.job(job_id).resume(epochs=3)
        return delete(self, keys)

    monkeypatch.setattr(ObjectStore, "delete", delete_late)

    # It was told of the job, whose live state is forgotten, and has read that it has ended.
    keeper.reconcile(is_tick=False)

    assert client.backends.records.end(job_id) is None
    assert client.backends.records.active() == [job_id]


def test_a_job_that_is_rebuilt_is_on_the_list_whoever_took_it_off(
    client: Client, keeper: JobKeeper, job_id: str
) -> None:
    client.backends.objects.delete([f"active/{job_id}"])

    keeper.reconcile(is_tick=False)

    assert client.backends.records.active() == [job_id]


def test_a_job_whose_last_life_is_retired_late_is_one_of_the_pool_again(
    client: Client, keeper: JobKeeper, pool_client: Redis, job_id: str
) -> None:
    keeper.reconcile(is_tick=False)
    # The last that another parameter server, held up, does for the life before.
    pool_client.zadd(ENDED_KEY, {job_id: 2e9})
    pool_client.srem(JOBS_KEY, job_id)

    keeper.reconcile(is_tick=True)

    assert live_jobs(pool_client) == [job_id]
    assert ended_jobs(pool_client) == []


def test_a_job_that_is_on_no_list_is_put_back_by_who_resumes_it_again(
    client: Client, job_id: str
) -> None:
    client.backends.records.set_end(job_id, 0, make_end(job_id), [])
    client.backends.records.add_life(replace(make_spec(job_id), epochs=3), 1)
    client.backends.objects.delete([f"active/{job_id}"])

    with pytest.raises(Conflict, match="has not ended"):
        client.job(job_id).resume(epochs=3)

    assert client.backends.records.active() == [job_id]


def test_each_plan_is_asked_for_afresh_and_then_ever_more_rarely(
    client: Client, dispatcher: Dispatcher, plans_asked: Callable[[], int], job_id: str
) -> None:
    spec = client.backends.records.spec(job_id)
    watch = DispatchWatch(dispatcher, None, job_id)  # type: ignore[arg-type]

    def waits(gen: int) -> list[int]:
        """Seconds after which a plan is asked for that nobody makes."""
        head = Head(state="PLAN", gen=str(gen), since=gen * 1e6)
        asked = []
        for second in range(20):
            before = plans_asked()
            now = replace(_EMPTY, head=head, now_ms=gen * 1e6 + second * 1000)
            watch.repair(now, spec, queue_length=0)
            asked += [second] * (plans_asked() - before)
        return asked

    assert waits(1) == [2, 6, 14]
    # As when a job is stopped and resumed again and again.
    assert waits(2) == [2, 6, 14]


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "cut by an earlier version"])
def test_a_job_whose_function_raises_a_long_text_of_any_characters_ends(
    client: Client, keeper: JobKeeper, pool_client: Redis, job_id: str, *, is_cut: bool
) -> None:
    why = "-" + "日本語" * 800
    store = fail_with(keeper, pool_client, job_id, why)
    if is_cut:
        text: Any = pool_client.hget(store.key("g"), "f1")
        pool_client.hset(store.key("g"), "f1", text.replace("日".encode(), b"\xe6\x97"))

    assert not keeper.reconcile(is_tick=True)

    end = client.backends.records.end(job_id)
    assert end is not None
    assert (end.state, end.reason) == (State.FAILED, why)
    assert client.backends.records.active() == []


def test_books_that_cannot_be_kept_stop_no_job_and_are_told_of_once(
    client: Client,
    keeper: JobKeeper,
    pool_client: Redis,
    job_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def look(*_args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(JobBooks, "look", look)
    fail_with(keeper, pool_client, job_id, "the ink has run out")
    assert not keeper.reconcile(is_tick=True)

    end = client.backends.records.end(job_id)
    assert end is not None
    assert end.reason == "the ink has run out"
    assert caplog.text.count("its metrics are incomplete") == 1


@pytest.mark.parametrize("epoch", [None, 1], ids=["from its spec", "from a checkpoint"])
def test_a_generation_begins_with_the_declared_fields_and_no_others(
    client: Client, keeper: JobKeeper, pool_client: Redis, job_id: str, epoch: int | None
) -> None:
    if epoch is not None:
        client.backends.checkpoints.publish(make(client.backends.checkpoints, job_id, epoch), epoch)

    keeper.reconcile(is_tick=False)

    stands: Any = pool_client.hkeys(RoundStore(pool_client, job_id).key("h"))
    begun_with = {*Head().to_fields(), "gen", "birth", "since", "opened"}
    assert {name.decode() for name in stands} == begun_with
    head = RoundStore(pool_client, job_id).head()
    assert head.unreadable == ()
    assert (head.epoch, head.version > 0, bool(head.weights)) == (
        epoch or 0, epoch is not None, epoch is not None
    )  # fmt: skip


@pytest.mark.parametrize("field", ["epoch", "want", "since", "life", "used_ms"])
def test_a_job_whose_head_nobody_can_read_is_built_anew_and_says_why(
    client: Client, keeper: JobKeeper, pool_client: Redis, job_id: str, field: str
) -> None:
    keeper.reconcile(is_tick=False)
    store = RoundStore(pool_client, job_id)
    pool_client.hset(store.key("h"), field, "much")

    assert keeper.reconcile(is_tick=True)

    head = store.head()
    assert (head.gen, head.state, head.unreadable) == ("2", "INIT", ())
    last = client.job(job_id).recent_events()[-1]
    assert (last.kind, f"{field} is 'much'" in last.fields["why"]) == ("rebuilt", True)


@pytest.mark.parametrize("field", ["epoch", "life", "opened", "failed"])
def test_a_job_that_has_ended_is_written_down_whatever_its_head_has_become(
    client: Client, keeper: JobKeeper, pool_client: Redis, job_id: str, field: str
) -> None:
    store = fail_with(keeper, pool_client, job_id, "no more ink")
    pool_client.hset(store.key("h"), field, "much")

    assert not keeper.reconcile(is_tick=True)

    end = client.backends.records.end(job_id)
    assert end is not None
    assert (end.state, end.reason) == (State.FAILED, "no more ink")


def fail_with(keeper: JobKeeper, pool_client: Redis, job_id: str, why: str) -> Participation:
    """Let the job's function raise as often as it may; nobody has looked after it since."""
    keeper.reconcile(is_tick=False)
    store = Participation(pool_client, job_id)
    gen, answer = store.head().gen, "OK"
    while answer == "OK":
        pool_client.zadd(store.key("d"), {"ticket": 0})
        work = store.take(gen, token="t", ticket="ticket", stage="init")
        assert isinstance(work, Work)
        answer = store.kick(gen, work.rid, slot=0, who="t", kind="error", why=why)
    assert answer == "FAILED"
    return store


_EMPTY = Snapshot(
    head=Head(), contributions={}, num_live=0, tickets={}, optimizer={}, local={}, now_ms=0.0
)
