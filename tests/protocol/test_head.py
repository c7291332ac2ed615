"""Heads as a real state server has them."""

from brokers.rounds.head import Head
from brokers.wire import new_id
from tests.protocol.jobs import ScriptedJob

EVERY = {name.decode() for name in Head.names(*(set(Head.__slots__) - {"unreadable"}))}


def test_head_that_the_scripts_have_written_to_is_read_without_a_rest(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=2, vslots=1, hedge=1)
    job.store.scale(job.gen, 1, 2, 3, 4)
    job.store.share(job.gen, most=2, credit_ms=-7.4, lean=-1, at_ms=1234.5, used_ms=99)
    job.store.acquire(job.gen, "ps-1", ttl_ms=3000)
    job.store.kick(job.gen, job.rid, slot=0, who=held(job), kind="error", why="once")
    job.run_epoch()
    job.fill(stage="validate")
    job.store.stop(job.gen)
    job.store.finish(job.gen, job.rid, "", to="STOPPED", reason="enough")

    head = job.store.head()

    assert set(job.head) - EVERY == set()
    assert head.unreadable == ()
    assert (head.state, head.stop, head.reason, head.gen) == ("STOPPED", True, "enough", "1")
    assert (head.epoch, head.rounds, head.round, head.version) == (1, 2, 2, 3)
    assert (head.scale, head.floor, head.ceiling, head.max_workers) == (1, 2, 3, 4)
    assert (head.allot, head.credit, head.lean, head.books_used_ms) == (2, -7, -1, 99)
    assert (head.owner, head.failed, head.validation_slots) == ("ps-1", 1, 1)
    assert head.since >= (head.planned_at or 0) > 1e12
    assert job.store.snapshot().head == head


def test_no_head_is_false(job: ScriptedJob) -> None:
    assert not job.store.head()
    assert not job.store.snapshot().head
    assert job.begin().store.head()


def held(job: ScriptedJob) -> str:
    token = new_id()
    assert job.join(token).slot == 0
    return token
