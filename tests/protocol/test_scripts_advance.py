"""ADVANCE: the only way to a new version, and only with everything in place."""

from brokers.rounds.answers import Wait, Work
from brokers.tensors.chunks import CHUNK_BYTES
from brokers.tensors.reference import TensorRef
from brokers.wire import new_id
from tests.protocol.jobs import ScriptedJob


def test_advance_switches_to_the_staged_weights_in_one_step(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=3)
    cids, weights, outer, rid = job.fill(), job.stage(b"new"), job.stage(b"outer"), new_id()
    rings = job.num_rings()

    answer = job.advance(cids, new_rid=rid, weights=weights, outer_state=outer)

    assert answer == ("OK", "RUN")
    snap = job.store.snapshot()
    assert (snap.rid, snap.head.version, snap.head.round) == (rid, 2, 1)
    assert (snap.weights, snap.outer_state) == (weights, outer)
    assert snap.contributions == {}
    assert job.everything()["s"] == {}
    assert list(job.store.ledger()[0]) == [0]
    assert job.num_rings() > rings


def test_advance_repeated_is_ok_and_changes_nothing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=2)
    old, new, weights, cids = job.rid, new_id(), job.stage(), job.fill()
    job.advance(cids, rid=old, new_rid=new, weights=weights)
    before = job.everything()

    again = [job.advance(cids, rid=old, new_rid=new, weights=weights) for _ in range(3)]

    assert again == [("OK", "RUN")] * 3
    assert job.everything() == before


def test_advance_repeated_after_the_next_stage_began_is_ok(job: ScriptedJob) -> None:
    # A client that is told STALE drops what it staged: these are the current weights.
    job.begin()
    old, new, weights, cids = job.rid, new_id(), job.stage(), job.fill(stage="init")
    job.advance(cids, rid=old, new_rid=new, weights=weights)
    job.plan(slots=1, rounds=1)
    before = job.everything()

    again = job.advance(cids, rid=old, new_rid=new, weights=weights)

    assert again == ("OK", "RUN")
    assert job.everything() == before


def test_advance_of_a_superseded_parameter_server_is_stale(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=3)
    rid, cids = job.rid, job.fill()
    assert job.advance(cids, rid=rid) == ("OK", "RUN")
    before = job.everything()

    assert job.advance(cids, rid=rid) == ("STALE", "")
    assert job.everything() == before


def test_advance_asks_for_more_until_every_slot_is_in(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    nothing = job.advance([])
    work = job.join("a")
    job.contribute("a", work, "one")
    before = job.everything()

    one = job.advance(["one"])

    assert nothing == ("MORE", "")
    assert one == ("MORE", "")
    assert job.everything() == before


def test_advance_asks_for_more_when_the_wrong_slots_are_in(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    cids = job.fill()
    text = job.store.snapshot().contributions[1]
    job.client.hdel(job.store.key("c"), "1")
    job.client.hset(job.store.key("c"), "5", text)

    assert job.advance(cids) == ("MORE", "")


def test_advance_says_when_the_contributions_have_changed(job: ScriptedJob) -> None:
    job.begin_planned(slots=2)
    cids = job.fill()
    rid = job.rid
    job.store.kick("1", rid, slot=1, who=cids[1], kind="bad", why="")
    job.fill()
    before = job.everything()

    assert job.advance(cids) == ("CHANGED", "")
    assert job.advance(cids[::-1]) == ("CHANGED", "")
    assert job.everything() == before


def test_advance_says_when_staged_chunks_are_missing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    cids = job.fill()
    weights = job.channel.push(job.store.key("w", new_id()), b"x" * (CHUNK_BYTES + 1))
    job.client.delete(weights.chunk_keys()[1])
    before = job.everything()

    answer = job.advance(cids, weights=weights)

    assert answer == ("MISSING", weights.chunk_keys()[1])
    assert job.everything() == before


def test_advance_says_when_the_staged_outer_state_is_missing(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    cids, outer = job.fill(), job.stage()
    job.channel.drop(outer)

    assert job.advance(cids, outer_state=outer) == ("MISSING", outer.chunk_keys()[0])


def test_advance_of_another_generation_is_gone(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    cids = job.fill()
    before = job.everything()
    job.gen = "2"

    assert job.advance(cids) == ("GONE", "")
    assert job.everything() == before


def test_advance_in_a_stage_without_merges_is_stale(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1, vslots=1)
    job.run_epoch()
    cids = job.fill(stage="validate")

    assert job.state == "VAL"
    assert job.advance(cids) == ("STALE", "")


def test_advance_switches_the_optimizer_states_with_the_weights(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=2)
    job.client.hset(job.store.key("o"), mapping={"0": "old-0", "1": "old-1"})
    job.contribute("a", job.join("a"), "a", optimizer="new-0")
    before = job.store.snapshot().optimizer
    job.contribute("b", job.join("b"), "b", optimizer="")

    job.advance(["a", "b"])

    assert before == {0: "old-0", 1: "old-1"}
    assert job.store.snapshot().optimizer == {0: "new-0", 1: "old-1"}
    taken = job.take("a")
    assert isinstance(taken, Work)
    assert taken.optimizer == "new-0"


def test_advance_wants_fewer_slots_in_a_short_last_round(job: ScriptedJob) -> None:
    job.begin_planned(slots=3, rounds=3, last_want=2)

    wanted = []
    for _ in range(3):
        wanted.append(job.head["want"])
        assert job.advance(job.fill())[0] == "OK"

    assert wanted == ["3", "3", "2"]
    assert job.state == "END"


def test_advance_at_the_last_round_goes_to_validation_or_the_end(job: ScriptedJob) -> None:
    job.begin_planned(slots=3, rounds=1, vslots=2)
    job.join("early")
    job.client.delete(job.store.key("s"))
    cids = job.fill()

    assert job.advance(cids) == ("OK", "VAL")
    assert job.head["want"] == "2"
    # The stage is another one: participants and dispatches are asked anew.
    assert job.everything()["p"] == []
    assert job.everything()["d"] == []


def test_advance_without_validation_ends_the_epoch(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=1, vslots=0)

    assert job.advance(job.fill()) == ("OK", "END")
    assert job.head["want"] == "0"
    assert not job.store.snapshot().is_complete


def test_advance_of_the_initial_weights_leads_to_the_plan(job: ScriptedJob) -> None:
    job.begin()
    weights = job.stage(b"initial")

    answer = job.advance(job.fill(stage="init"), weights=weights)

    assert answer == ("OK", "PLAN")
    snap = job.store.snapshot()
    assert (snap.head.version, snap.head.epoch, snap.head.round) == (1, 0, 0)
    assert snap.weights == weights
    assert job.store.ledger() == ({}, [], {})


def test_participants_stay_over_the_rounds_of_an_epoch(job: ScriptedJob) -> None:
    job.begin_planned(slots=1, rounds=3)
    work = job.join("a")

    versions = []
    for number in range(3):
        versions.append(work.version)
        assert job.contribute("a", work, f"c{number}") == "OK"
        assert isinstance(job.take("a"), Wait)
        job.advance([f"c{number}"])
        if number < 2:
            again = job.take("a")
            assert isinstance(again, Work)
            work = again

    assert versions == [1, 2, 3]


def test_the_ledger_says_what_each_round_merged(job: ScriptedJob) -> None:
    job.begin_planned(slots=2, rounds=2)
    merged = []
    while job.state == "RUN":
        cids = job.fill()
        job.advance(cids)
        merged.append(cids)

    ledger = job.store.ledger().merged

    assert [ledger[0], ledger[1]] == [str(cids).replace("'", '"') for cids in merged]


def test_references_survive_the_head(job: ScriptedJob) -> None:
    job.begin_planned(slots=1)
    weights = job.stage(b"bytes")
    job.advance(job.fill(), weights=weights)

    found = TensorRef.from_json(job.head["w"])

    assert job.channel.pull(found) == b"bytes"
