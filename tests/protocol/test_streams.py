"""Progress events and log lines reach followers in order, once, and without end of memory."""

import threading
import time
from typing import Any

import pytest
from redis import Redis

from brokers.rounds import streams
from brokers.rounds.events import Event, LogLine
from brokers.rounds.streams import JobStreams


@pytest.fixture
def job_streams(client: Redis, job_id: str) -> JobStreams:
    return JobStreams(client, job_id)


def make_line(text: str, **changes: Any) -> dict[str, Any]:
    line = {"at": 1.5, "level": "INFO", "worker": "worker-1", "epoch": 1, "round": 0, "slot": 2}
    return {**line, "text": text, **changes}


def test_events_are_read_in_order_with_their_fields(job_streams: JobStreams) -> None:
    before = time.time()
    job_streams.emit("init", layout="abc")
    job_streams.emit("epoch", epoch=1, ratio=0.5, why="ün", nothing=None)

    events = job_streams.events()

    assert [(e.kind, e.fields) for e in events] == [
        ("init", {"layout": "abc"}),
        ("epoch", {"epoch": 1, "ratio": 0.5, "why": "ün", "nothing": None}),
    ]
    assert all(abs(event.at - before) < 60 for event in events)


def test_a_follower_reads_each_event_once(job_streams: JobStreams) -> None:
    seen: list[Event] = []
    for number in range(5):
        job_streams.emit("round", round=number)
        seen += job_streams.events(since=seen[-1].id if seen else "0")

    assert [event.fields["round"] for event in seen] == [0, 1, 2, 3, 4]
    assert job_streams.events(since=seen[-1].id) == []


def test_a_job_without_events_has_none(job_streams: JobStreams) -> None:
    assert job_streams.events() == []
    assert job_streams.lines() == []
    assert job_streams.events(block_ms=20) == []


def test_a_waiting_follower_is_woken_by_an_event(
    job_streams: JobStreams, redis_url: str, job_id: str
) -> None:
    found: list[Event] = []

    def follow() -> None:
        with Redis.from_url(redis_url) as own:
            follower = JobStreams(own, job_id)
            while not found:
                found.extend(follower.events(block_ms=2000))

    thread = threading.Thread(target=follow)
    thread.start()
    job_streams.emit("end", state="DONE")
    thread.join(10)

    assert [event.kind for event in found] == ["end"]


def test_waiting_is_bounded(job_streams: JobStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_BLOCK_MS", 30)
    began = time.monotonic()

    assert job_streams.events(block_ms=60_000) == []
    assert time.monotonic() - began < 10


def test_log_lines_are_read_in_order_with_where_they_came_from(job_streams: JobStreams) -> None:
    job_streams.log([make_line("one"), make_line("two", level="ERROR", slot=3)])
    job_streams.log([make_line("three\nlines\nof text")])

    lines = [line for _, line in job_streams.lines()]

    assert lines[0] == LogLine(
        at=1.5, level="INFO", worker="worker-1", epoch=1, round=0, slot=2, text="one"
    )
    assert [(line.text, line.level, line.slot) for line in lines[1:]] == [
        ("two", "ERROR", 3),
        ("three\nlines\nof text", "INFO", 2),
    ]
    assert lines[0].to_wire() == make_line("one")


def test_more_lines_than_one_read_holds_are_read_by_their_ids(job_streams: JobStreams) -> None:
    job_streams.log([make_line(str(number)) for number in range(2500)])

    read: list[tuple[str, LogLine]] = []
    while batch := job_streams.lines(since=read[-1][0] if read else "0"):
        read += batch

    assert [line.text for _, line in read] == [str(number) for number in range(2500)]


def test_streams_forget_the_oldest(
    job_streams: JobStreams, client: Redis, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_LOG_LINES", 100)
    monkeypatch.setattr(streams, "MAX_EVENTS", 100)

    job_streams.log([make_line(str(number)) for number in range(2000)])
    for number in range(500):
        job_streams.emit("round", round=number)

    lines, events = job_streams.lines(), job_streams.events()
    assert lines[-1][1].text == "1999"
    assert events[-1].fields["round"] == 499
    # Trimming is approximate: whole nodes of a hundred entries.
    assert int(client.xlen(f"kml:{{{job_id}}}:log")) <= 300  # type: ignore[arg-type]
    assert len(events) <= 300


def test_jobs_do_not_hear_each_other(client: Redis, job_id: str) -> None:
    one, other = JobStreams(client, job_id), JobStreams(client, f"{job_id}-other")
    one.emit("init")
    one.log([make_line("mine")])

    assert other.events() == []
    assert other.lines() == []


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_wire_protocols_are_understood(redis_url: str, job_id: str, protocol: int) -> None:
    with Redis.from_url(redis_url, protocol=protocol) as client:
        both = JobStreams(client, job_id)
        both.emit("init", a=1)
        both.emit("end", a=2)

        assert [event.fields for event in both.events()] == [{"a": 1}, {"a": 2}]
        assert [event.fields for event in both.events(block_ms=10)] == [{"a": 1}, {"a": 2}]
