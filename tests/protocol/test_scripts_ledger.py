"""The epoch's ledger keeps every attempt that came to nothing, and why."""

import json
from typing import Any

import pytest

from tests.protocol.jobs import LEASE_MS, ScriptedJob


def failed(job: ScriptedJob) -> list[dict[str, Any]]:
    return [json.loads(text) for text in job.store.ledger()[1]]


def test_an_attempt_that_was_lost_is_noted_when_another_takes_it_over(
    clocked_job: ScriptedJob,
) -> None:
    job = clocked_job.begin_planned(slots=1)
    job.join("dead", worker="box-1")
    job.step_clock(LEASE_MS + 1)

    job.join("heir", worker="box-2")

    (noted,) = failed(job)
    assert (noted["kind"], noted["token"], noted["worker"]) == ("lost", "dead", "box-1")
    assert (noted["stage"], noted["round"], noted["slot"], noted["attempt"]) == ("RUN", 0, 0, 1)
    assert noted["why"]


def test_errors_and_drains_are_noted_with_their_reason(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    for token, kind in (("a", "error"), ("b", "drain")):
        work = job.join(token)
        job.store.kick(
            job.gen, work.rid, slot=work.slot, who=token, kind=kind, why=f"{kind} happened"
        )

    assert [(f["kind"], f["token"], f["why"]) for f in failed(job)] == [
        ("error", "a", "error happened"),
        ("drain", "b", "drain happened"),
    ]


def test_a_refused_contribution_is_noted_with_who_made_it(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    job.contribute("a", work, "c1", worker="box-3")

    job.store.kick(job.gen, work.rid, slot=0, who="c1", kind="bad", why="NaN")

    (noted,) = failed(job)
    assert (noted["kind"], noted["worker"], noted["token"]) == ("bad", "box-3", "a")


def test_a_repeated_kick_is_noted_once(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")

    for _ in range(2):
        job.store.kick(job.gen, work.rid, slot=0, who="a", kind="error", why="once")

    assert len(failed(job)) == 1


def test_notes_are_bounded_and_begin_anew_with_the_next_epoch(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1)
    for number in range(520):
        work = job.join(f"t{number}")
        job.store.kick(job.gen, work.rid, slot=0, who=f"t{number}", kind="drain", why="x" * 5000)
        job.client.delete(job.store.key("p"))
    assert len(failed(job)) == 500
    assert len(failed(job)[0]["why"]) == 2000

    job.run_epoch()
    job.store.finish("1", job.rid, "next", to="PLAN")
    job.plan(epoch=2, slots=1)

    assert failed(job) == []


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("character", ["é", "日", "🚂"])
def test_a_long_reason_is_cut_between_two_characters(
    job: ScriptedJob, character: str, before: int
) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    why = "-" * before + character * 2000

    job.store.kick(job.gen, work.rid, slot=work.slot, who="a", kind="error", why=why)

    (noted,) = failed(job)
    assert why.startswith(noted["why"])
    assert 2000 - len(character.encode()) < len(noted["why"].encode()) <= 2000
    raw: Any = job.client.hget(job.store.key("g"), "f1")
    assert json.loads(raw.decode()) == noted


@pytest.mark.parametrize("length", [1999, 2000])
def test_a_reason_that_is_short_enough_stays_whole(job: ScriptedJob, length: int) -> None:
    job.begin_planned(slots=1)
    work = job.join("a")
    why = "-" * (length - 3) + "日"

    job.store.kick(job.gen, work.rid, slot=work.slot, who="a", kind="error", why=why)

    assert failed(job)[0]["why"] == why


def test_a_reason_that_has_no_encoding_is_told_all_the_same(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, max_errors=1)
    work = job.join("a")

    job.store.kick(
        job.gen, work.rid, slot=work.slot, who="a", kind="error", why="no file \udcff.npy"
    )

    assert job.head["reason"] == failed(job)[0]["why"] == "no file ?.npy"


def test_what_an_earlier_version_cut_inside_a_character_is_read(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    halved = b'{"kind": "error", "why": "\xe6\x97\xa5\xe6\x97"}'
    cut_escape = b'{"kind": "error", "why": "\\u65'
    job.client.hset(job.store.key("g"), mapping={"f1": halved, "f2": cut_escape})
    job.client.hset(job.store.key("h"), "reason", b"\xe6\x97")
    job.client.hset(job.store.key("c"), "0", b"\xe6\x97")

    assert json.loads(job.store.failed(1, 2)[0])["why"] == "日\ufffd"
    assert job.store.ledger().failed_attempts() == [{"kind": "error", "why": "日\ufffd"}]
    assert job.head["reason"] == job.store.snapshot().head.reason == "\ufffd"
    assert job.store.snapshot().contributions == {0: "\ufffd"}
