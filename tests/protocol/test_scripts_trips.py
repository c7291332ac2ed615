"""What goes in one trip: a look with the news, blobs with CONTRIB, TAKE with the bell."""

from threading import Thread
from unittest.mock import patch

from brokers.rounds.answers import Leave, Wait, Work
from brokers.rounds.streams import JobStreams
from brokers.state import exchange
from brokers.state.batch import Batch
from tests.protocol.jobs import ScriptedJob, make_contribution


def test_a_knock_names_the_chunks_that_were_handed_in(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    keys = []
    for slot, who in enumerate("ab"):
        work, made = job.join(who), make_contribution(slot=slot, token=who, cid=who)
        with job.channel.parcel() as parcel:
            keys += parcel.add(job.store.key("c", who), b"contribution").chunk_keys()
            parcel.add(job.store.key("o", who), b"optimizer state")
            assert job.store.contribute("1", work.rid, made, parcel=parcel)[0] == "OK"

    assert job.store.wait_for_knock("0-0", block_ms=2000).chunks == tuple(keys)


def test_a_knock_may_be_for_a_look_alone(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)

    job.store.knock()

    knock = job.store.wait_for_knock("0-0", block_ms=2000)
    assert (knock.left, knock.chunks) == (0, ())


def test_a_snapshot_reads_chunks_along_as_far_as_they_are_there(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    there = job.stage(b"bytes").chunk_keys()[0]
    job.client.set("kml:old", "1")

    snap = job.store.snapshot(chunks=[there, "kml:gone"], first=Batch().add("UNLINK", "kml:old"))

    assert snap.blobs == {there: b"bytes"}
    assert snap.state == "RUN"
    assert not job.client.exists("kml:old")


def test_a_batch_is_carried_out_in_order_in_the_trip_that_it_precedes(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    told = job.store.key("told")
    batch = Batch().add("RPUSH", told, "one").extend(Batch().add("RPUSH", told, "two"))

    with patch.object(exchange, "exchange", wraps=exchange.exchange) as trips:
        knock = job.store.wait_for_knock("0-0", block_ms=20, first=batch.take())
        snap = job.store.snapshot(first=batch.take().add("RPUSH", told, "three"))

    assert (knock.left, snap.state) == (-1, "RUN")
    assert job.client.lrange(told, 0, -1) == [b"one", b"two", b"three"]
    assert trips.call_count == 2


def test_an_event_and_what_is_to_be_dropped_cost_no_trip_of_their_own(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    streams, old = JobStreams(job.client, job.store.job_id), job.stage(b"old")
    batch = job.channel.dropping(old).extend(streams.event("round", loss=0.5))

    with patch.object(exchange, "exchange", wraps=exchange.exchange) as trips:
        job.store.snapshot(first=batch)

    assert trips.call_count == 1
    assert not job.channel.has(old)
    assert [(event.kind, event.fields) for event in streams.events()] == [("round", {"loss": 0.5})]


def test_contrib_whose_chunks_are_not_there_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    before = job.everything()
    made = make_contribution(slot=0, token="a")
    with job.channel.parcel() as parcel:
        staging = parcel.stage(job.store.key("c", "x"), b"lost")
        staging.send()
        parcel.finish()
        job.channel.drop(staging.ref)

        answer = job.store.contribute("1", work.rid, made, parcel=parcel)

    assert answer == ("MISSING", None)
    assert job.everything() == before


def test_contrib_says_where_the_bell_stands_when_there_is_nothing_else_to_do(
    job: ScriptedJob,
) -> None:
    job.begin_planned(slots=3)
    first, second = job.join("a"), job.join("b")
    one = make_contribution(slot=0, token="a", cid="one")
    # The third slot is nobody's.
    assert job.store.contribute("1", first.rid, one) == ("OK", None)

    job.join("c")
    two = make_contribution(slot=1, token="b", cid="two")
    answer, wait = job.store.contribute("1", second.rid, two)

    assert answer == "OK"
    assert wait is not None
    assert not wait.is_complete
    assert job.take("b") == wait


def test_take_behind_the_bell_is_answered_when_it_rings(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2)
    work = job.join("a")
    job.contribute("a", work, "first")
    waiting = job.take("a")
    assert isinstance(waiting, Wait)
    answers: list[object] = []
    thread = Thread(target=lambda: answers.append(job.take("a", after=waiting.bell, block_ms=5000)))
    thread.start()

    job.advance(["first"])
    thread.join(4)

    assert not thread.is_alive()
    assert isinstance(answers[0], Work)
    assert answers[0].round_index == 1


def test_take_behind_a_bell_that_does_not_ring_is_answered_all_the_same(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    job.contribute("a", job.join("a"))
    waiting = job.take("a")
    assert isinstance(waiting, Wait)

    assert job.take("a", after=waiting.bell, block_ms=20) == waiting


def test_time_behind_the_bell_counts_as_idle(clocked_job: ScriptedJob) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.contribute("a", job.join("a"))
    assert isinstance(job.take("a", queue_length=1), Wait)

    job.step_clock(400)
    assert isinstance(job.take("a", queue_length=1), Wait)
    job.step_clock(500)

    # Sent when it had been idle for no time at all.
    assert job.take("a", queue_length=1) == Leave(why="yield")
