"""Which workers the embedded stack starts and sends away: on a real server, with idle processes."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from brokers.pool.presence import alive_nodes
from brokers.settings import Secret, Settings
from kubeml.stack.child import Child, end_all
from kubeml.stack.worker_pool import WorkerPool
from tests.cluster import on_database
from tests.eventually import eventually
from tests.protocol.jobs import ScriptedJob

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)",
]  # fmt: skip

MakePool = Callable[..., WorkerPool]


@pytest.fixture
def settings(redis_url: str, base_settings: Settings, tmp_path: Path) -> Settings:
    """A database of this test's own: the whole pool is read."""
    assert redis_url
    return on_database(base_settings, 13).with_changes(idle_s=0.5, home=tmp_path)


@pytest.fixture
def client(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(str(settings.state_url)) as made:
        made.flushdb()
        yield made
        made.flushdb()


@pytest.fixture
def job(client: Redis, job_id: str) -> ScriptedJob:
    return ScriptedJob(client, job_id)


@pytest.fixture
def make_pool(settings: Settings, tmp_path: Path) -> Iterator[MakePool]:
    """Makes pools of processes that sleep; all are ended afterwards."""
    pools: list[WorkerPool] = []

    def make_pool(
        *, low: int = 0, high: int = 3, command: list[str] = SLEEP, drain_s: float = 20.0,
        state_url: str = "",
    ) -> WorkerPool:  # fmt: skip
        changed = settings.with_changes(state_url=Secret(state_url)) if state_url else settings

        def child(number: int) -> Child:
            name = f"worker-{number}"
            return Child(
                name=name, role="worker", command=command, env={}, cwd=tmp_path,
                log=tmp_path / f"{name}.log",
            )  # fmt: skip

        pools.append(WorkerPool(changed, low=low, high=high, make=child, drain_s=drain_s))
        return pools[-1]

    yield make_pool
    for pool in pools:
        pool.close()
        for leaving in pool.leaving:
            leaving.is_leaving = False
        end_all([*pool.workers, *pool.leaving], within_s=0.2)


def names(children: list[Child]) -> list[str]:
    return [child.name for child in children]


def looking_until(pool: WorkerPool, there: list[str], *, what: str) -> None:
    """Look, as the supervisor does, until these workers are to run and nobody is on his way out."""

    def is_so() -> bool:
        pool.look()
        return names(pool.workers) == there and not pool.leaving

    eventually(is_so, within_s=15, what=what)


def test_worker_with_a_slot_in_hand_stays_and_an_idle_one_goes(
    make_pool: MakePool, job: ScriptedJob
) -> None:
    job.begin_planned(slots=3, rounds=2, last_want=1)
    pool = make_pool()
    looking_until(pool, ["worker-1", "worker-2", "worker-3"], what="a worker for each slot")
    started = {child.name: child.process for child in pool.workers}

    job.advance(job.fill())
    job.client.delete(job.store.key("p"))  # whoever trained that round has gone
    job.join("t", worker="worker-2")

    looking_until(pool, ["worker-2"], what="the one that has the slot")
    assert pool.workers[0].process is started["worker-2"]
    assert pool.workers[0].is_up
    assert all(p and p.poll() is not None for n, p in started.items() if n != "worker-2")


def test_busy_workers_stay_even_if_fewer_are_wanted(make_pool: MakePool, job: ScriptedJob) -> None:
    job.begin_planned(slots=2, max_workers=2)
    pool = make_pool()
    looking_until(pool, ["worker-1", "worker-2"], what="both")
    for name in ("worker-1", "worker-2"):
        job.join(name, worker=name)
    job.client.hset(job.store.key("h"), "max_workers", 1)

    with pytest.raises(AssertionError, match="no one of them"):
        looking_until_gone(pool, within_s=2.0)

    assert names(pool.workers) == ["worker-1", "worker-2"]


def looking_until_gone(pool: WorkerPool, *, within_s: float) -> None:
    def has_lost_one() -> bool:
        pool.look()
        return bool(pool.leaving) or len(pool.workers) < 2

    eventually(has_lost_one, within_s=within_s, what="one of them to leave")


def test_pool_keeps_between_its_bounds_and_gives_numbers_out_again(
    make_pool: MakePool, job: ScriptedJob
) -> None:
    pool = make_pool(low=1, high=2)
    pool.start()
    at_first = names(pool.workers)
    job.begin_planned(slots=5)

    looking_until(pool, ["worker-1", "worker-2"], what="as many as it may have")
    job.store.stop(job.gen)
    looking_until(pool, ["worker-1"], what="as few as it may have")
    job.store.forget()
    again = ScriptedJob(job.client, f"{job.store.job_id}-b").begin_planned(slots=2)
    looking_until(pool, ["worker-1", "worker-2"], what="the second one again")

    assert at_first == ["worker-1"]
    assert again.state == "RUN"


def test_worker_that_does_not_go_is_killed_in_the_end(
    make_pool: MakePool, job: ScriptedJob, tmp_path: Path
) -> None:
    job.begin_planned(slots=1)
    pool = make_pool(command=STUBBORN, drain_s=1.0)
    looking_until(pool, ["worker-1"], what="a worker")
    process = pool.workers[0].process
    assert process is not None
    eventually((tmp_path / "worker-1.log").read_text, within_s=10, what="deaf ears")

    job.store.stop(job.gen)

    looking_until(pool, [], what="nobody")
    assert process.returncode == -9


def test_nothing_shrinks_while_the_demand_is_not_known(
    make_pool: MakePool, settings: Settings
) -> None:
    pool = make_pool(low=0, high=2, state_url="redis://127.0.0.1:1/0")
    pool._grow(2)

    with pytest.raises(AssertionError, match="no one of them"):
        looking_until_gone(pool, within_s=settings.idle_s + 3.0)


def test_pool_says_how_many_more_it_would_start(
    make_pool: MakePool, job: ScriptedJob, client: Redis
) -> None:
    job.begin_planned(slots=1)
    pool = make_pool(high=3)

    looking_until(pool, ["worker-1"], what="a worker")
    (told,) = alive_nodes(client, role="supervisor")
    pool.close()

    # Not 2: the one that was started has not announced itself yet.
    assert (told.room, told.device) == (3, "cpu")
    assert alive_nodes(client, role="supervisor") == []


def test_new_worker_does_not_wait_for_one_that_is_on_his_way_out(
    make_pool: MakePool, job: ScriptedJob, tmp_path: Path
) -> None:
    job.begin_planned(slots=1)
    pool = make_pool(high=2, command=STUBBORN)
    looking_until(pool, ["worker-1"], what="a worker")
    eventually((tmp_path / "worker-1.log").read_text, within_s=10, what="deaf ears")
    job.store.stop(job.gen)
    eventually(lambda: pool.look() or pool.leaving, within_s=10, what="the worker to be told")

    ScriptedJob(job.client, f"{job.store.job_id}-b").begin_planned(slots=2)

    eventually(lambda: pool.look() or pool.workers, within_s=10, what="another one")
    assert (names(pool.workers), names(pool.leaving)) == (["worker-2"], ["worker-1"])
