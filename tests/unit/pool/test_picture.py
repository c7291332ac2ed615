"""The picture of a pool, from what the servers say of it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from brokers.pool.job_reading import JobReading, PoolReading
from brokers.pool.node import Node
from brokers.pool.request import Request
from brokers.rounds.events import Event
from brokers.rounds.head import Head
from kubeml.pool.picture import JobFacts, view_pool
from kubeml.pool.view import PoolJob, PoolWorker

NOW_MS = 1_800_000_010_000.0
OPENED_MS = NOW_MS - 1000

#: 1,000 rows on two slots in rounds of 4 x 25: five rounds.
FACTS = JobFacts(
    function="lenet", epochs=3, batch_size=25, k=4, num_rows=1000, created_at=NOW_MS / 1000
)


def node(name: str, *, role: str = "worker", device: str = "cpu", gpu: str = "") -> Node:
    return Node(name=name, role=role, pid=1, device=device, host="alpha", at=NOW_MS / 1000, gpu=gpu)


def head(**changes: Any) -> Head:
    values: dict[str, Any] = {
        "gen": "1", "state": "RUN", "device": "cpu", "epoch": 1, "round": 1, "rounds": 5,
        "slots": 2, "lease_ms": 6000, "opened": OPENED_MS, "since": NOW_MS - 4000,
    }  # fmt: skip
    return Head(**(values | changes))


def lease(worker: str, token: str, **changes: object) -> dict[str, Any]:
    return {
        "t": token, "w": worker, "at": NOW_MS - 800, "dl": NOW_MS + 5000, "n": 1, "e": 0, "l": 0,
        "a": 200, "b": 200,
    } | changes  # fmt: skip


def given(worker: str, token: str, *, samples: int = 100, **changes: object) -> dict[str, Any]:
    return {"worker": worker, "token": token, "num_samples": samples, "timings": {}} | changes


def merged(worker: str, token: str, *, samples: int = 100, ahead: float = 0) -> dict[str, Any]:
    return {"worker": worker, "token": token, "samples": samples, "timings": {"ahead": ahead}}


def events() -> list[Event]:
    """The epoch was planned 3 s ago; its first round, of 200 rows, was merged 1 s ago."""
    now = NOW_MS / 1000
    plan = {"epoch": 1, "epochs": 3, "rounds": 5, "samples": 1000}
    round_ = {"epoch": 1, "round": 1, "rounds": 5, "samples": 200}
    return [
        Event(id="1", kind="epoch", at=now - 3, fields=plan),
        Event(id="2", kind="round", at=now - 1, fields=round_),
    ]


def a_job(job_id: str = "one", **changes: Any) -> JobReading:
    """Slot 0 is handed in by w1, who waits; slot 1 is trained by w2."""
    values: dict[str, Any] = {
        "head": head(),
        "leases": {0: lease("w1", "", dl=0, i=700.0), 1: lease("w2", "t2")},
        "contributions": {0: given("w1", "t1")},
        "participants": {"t1": NOW_MS - 100, "t2": NOW_MS - 100},
        "events": events(),
        "merged": [merged("w1", "t1"), merged("w2", "t2")],
        "timing": [OPENED_MS - 2000, 2000, [[0, 0, 500], [0, 1000, 2000]]],
    }
    return JobReading(id=job_id, **(values | changes))


def a_pool(*jobs: JobReading, nodes: list[Node] | None = None) -> PoolReading:
    servers = [node("ps", role="ps"), node("control", role="control")]
    workers = [node("w1"), node("w2"), node("w3"), node("w10", device="gpu", gpu="0")]
    queues = {"kubeml.train.cpu": 3, "kubeml.infer.gpu": 0, "kubeml.control": 0, "kubeml.ps": 1}
    return PoolReading(
        now_ms=NOW_MS, jobs=jobs, queues=queues,
        nodes=[*servers, *(workers if nodes is None else nodes)],
    )  # fmt: skip


def the_job(job: JobReading, facts: JobFacts | None = FACTS) -> PoolJob:
    return view_pool(a_pool(job), {job.id: facts} if facts else {}).jobs[0]


def worker(name: str, *jobs: JobReading, nodes: list[Node] | None = None) -> PoolWorker:
    view = view_pool(a_pool(*jobs, nodes=nodes), {})
    return next(worker for worker in view.workers if worker.name == name)


# -- jobs ------------------------------------------------------------------------------------


def test_job_under_way_has_progress_speed_and_time_left() -> None:
    job = the_job(a_job())

    assert (job.id, job.state, job.function, job.epoch, job.epochs) == (
        "one", "RUN", "lenet", 1, 3,
    )  # fmt: skip
    assert (job.round, job.rounds, job.slots, job.workers) == (1, 5, 2, 2)
    # 200 rows merged and 100 handed in.
    assert job.progress == pytest.approx(0.3)
    assert job.samples_per_s == 100
    assert job.epoch_left_s == 7
    assert job.left_s == 27
    # Three workers have a CPU.
    assert job.share == pytest.approx(2 / 3)
    assert (job.waiting, job.oldest_wait_s) == (0, None)


def test_last_short_round_counts_its_rows_alone() -> None:
    job = the_job(a_job(head=head(round=4), contributions={}), replace(FACTS, num_rows=850))

    # 425 rows for each slot: four rounds of 100, and one of 25.
    assert job.progress == pytest.approx(800 / 850)


def test_job_without_history_claims_no_speed_and_no_time() -> None:
    job = the_job(a_job(head=head(round=0), contributions={}, events=[], merged=[], timing=None))

    assert job.progress == 0
    assert (job.samples_per_s, job.epoch_left_s, job.left_s) == (None, None, None)


def test_pauses_between_epochs_are_part_of_the_time_left() -> None:
    now = NOW_MS / 1000
    last = {"epoch": 1, "round": 5, "rounds": 5, "samples": 200}
    plan = {"epoch": 2, "epochs": 3, "rounds": 5, "samples": 1000}
    more = [
        Event(id="3", kind="round", at=now - 0.9, fields=last),
        Event(id="4", kind="epoch", at=now - 0.4, fields=plan),
    ]
    without = the_job(a_job(head=head(epoch=2), events=events()))
    job = the_job(a_job(head=head(epoch=2), events=[*events(), *more]))

    # One epoch is to come, after half a second.
    assert (without.left_s, job.left_s) == (17, 17.5)


@pytest.mark.parametrize("state", ["VAL", "END", "PLAN"])
def test_between_epochs_the_rows_of_later_ones_are_left(state: str) -> None:
    # A rebuilt job stands in END with the round of no epoch at all.
    job = the_job(a_job(head=head(state=state, round=0, rounds=1), contributions={}))

    assert job.progress == 1
    assert job.epoch_left_s is None
    assert job.samples_per_s == 100
    assert job.left_s == 20


def test_job_that_has_not_trained_for_long_has_no_speed() -> None:
    job = the_job(a_job(head=head(state="PLAN", since=NOW_MS - 60_000), contributions={}))

    assert job.samples_per_s is None
    assert job.left_s == 20


@pytest.mark.parametrize("state", ["INIT", "PLAN"])
def test_before_the_first_epoch_nothing_is_done(state: str) -> None:
    job = the_job(a_job(head=head(state=state, epoch=0, round=0), contributions={}, events=[]))

    assert job.progress == 0
    assert job.left_s is None


def test_after_the_last_epoch_or_the_end_nothing_is_left() -> None:
    assert the_job(a_job(head=head(state="VAL", epoch=3))).left_s == 0
    assert the_job(a_job(head=head(state="FAILED", epoch=2))).left_s == 0


def test_dispatches_that_wait_are_counted_and_the_oldest_timed() -> None:
    job = the_job(a_job(tickets=[NOW_MS - 200, NOW_MS - 4500]))

    assert (job.waiting, job.oldest_wait_s) == (2, 4.5)


def test_participants_that_were_not_seen_for_a_lease_do_not_count() -> None:
    job = the_job(a_job(participants={"t1": NOW_MS - 6001, "t2": NOW_MS - 5999}))

    assert job.workers == 1


def test_job_whose_records_cannot_be_read_is_shown_without() -> None:
    job = the_job(a_job(), None)

    assert (job.function, job.epochs, job.progress, job.left_s) == ("", 0, None, None)
    assert job.samples_per_s == 100


def test_job_without_live_state_is_shown_as_such() -> None:
    job = the_job(JobReading(id="lost", head=Head()), None)

    assert (job.id, job.state, job.workers, job.share) == ("lost", "", 0, None)


@pytest.mark.parametrize(
    ("changes", "nodes", "reason"),
    [
        ({}, ["gpu"], ""),
        ({"participants": {}}, ["cpu"], ""),
        ({"participants": {}}, ["gpu"], "no cpu worker in the pool (1 gpu worker)"),
        ({"participants": {}, "head": head(stop=True)}, ["gpu"], ""),
        ({"participants": {}, "contributions": {}}, [], "no worker in the pool: "),
    ],
    ids=["at work", "about to be", "nobody", "stopping", "empty pool"],
)
def test_job_that_nobody_can_serve_is_pending(
    changes: dict[str, Any], nodes: list[str], reason: str
) -> None:
    workers = [node(f"{device}-1", device=device) for device in nodes]
    job = a_job(**({"head": head(want=2)} | changes))

    view = view_pool(a_pool(job, nodes=workers), {})

    assert view.jobs[0].reason.startswith(reason)
    assert bool(view.jobs[0].reason) == bool(reason)
    assert view.jobs[0].state == "RUN"
    assert view.to_wire()["jobs"][0]["state"] == ("PENDING" if reason else "RUN")


def test_job_waits_for_a_worker_that_is_busy_with_another() -> None:
    waits = a_job("waits", head=head(want=2), participants={}, leases={}, contributions={})

    view = view_pool(a_pool(a_job(), waits, nodes=[node("w1"), node("w2")]), {})

    reasons = {job.id: job.reason for job in view.jobs}
    assert reasons == {"one": "", "waits": "waits for a free worker (2 busy with other jobs)"}


def test_jobs_are_in_the_order_of_their_submission() -> None:
    facts = {"b": replace(FACTS, created_at=1), "a": replace(FACTS, created_at=2)}

    view = view_pool(a_pool(a_job("a"), a_job("b")), facts)

    assert [job.id for job in view.jobs] == ["b", "a"]


# -- workers ---------------------------------------------------------------------------------


def test_who_holds_a_slot_trains() -> None:
    busy = worker("w2", a_job())

    assert (busy.stage, busy.job, busy.epoch, busy.round, busy.slot) == ("train", "one", 1, 1, 1)
    assert (busy.attempt, busy.for_s, busy.host, busy.device) == (1, 0.8, "alpha", "cpu")


def test_who_handed_in_waits_since_then() -> None:
    waiting = worker("w1", a_job())

    assert (waiting.stage, waiting.job, waiting.round, waiting.slot) == ("wait", "one", 1, None)
    assert waiting.for_s == pytest.approx(0.3)


def test_between_two_rounds_nobody_looks_idle() -> None:
    between = a_job(leases={}, contributions={})

    assert [worker(name, between).stage for name in ("w1", "w2", "w3")] == ["wait", "wait", "idle"]


def test_who_left_the_job_is_idle() -> None:
    assert worker("w1", a_job(participants={"t2": NOW_MS})).stage == "idle"


def test_a_lease_that_ran_out_is_nobodys() -> None:
    job = a_job(leases={1: lease("w2", "t2", dl=NOW_MS - 1)}, participants={}, contributions={})

    assert worker("w2", job) == PoolWorker(name="w2", host="alpha", device="cpu", gpu="")


def test_who_serves_another_job_by_now_does_not_wait() -> None:
    # Its last beat for the first job is not a lease old.
    other = a_job("other", leases={0: lease("w1", "t9")}, contributions={}, merged=[])

    assert worker("w1", other, a_job()).job == "other"
    assert worker("w1", a_job(), other).job == "other"


def test_who_answers_a_request_infers_whatever_it_waited_for() -> None:
    waits_no_more, unheard_of = (Request(device="cpu", until=2e9, worker=w) for w in ("w1", "w9"))
    nobody_has_it = Request(device="gpu", until=2e9)
    pool = replace(a_pool(a_job()), requests=[waits_no_more, unheard_of, nobody_has_it])

    stages = {worker.name: (worker.stage, worker.job) for worker in view_pool(pool, {}).workers}

    assert stages == {
        "w1": ("infer", ""), "w2": ("train", "one"), "w3": ("idle", ""), "w9": ("infer", ""),
        "w10": ("idle", ""),
    }  # fmt: skip


def test_of_two_leases_the_later_one_counts() -> None:
    # It came back as another execution before its first lease ran out.
    leases = {0: lease("w1", "t1", at=NOW_MS - 5000), 1: lease("w1", "t2", at=NOW_MS - 100)}
    swapped = {0: leases[1], 1: leases[0]}

    assert worker("w1", a_job(leases=leases, contributions={})).slot == 1
    assert worker("w1", a_job(leases=swapped, contributions={})).slot == 0


def test_making_initial_weights_has_no_speed() -> None:
    assert worker("w1", a_job(head=head(state="INIT", epoch=0))).samples_per_s is None


@pytest.mark.parametrize(("state", "stage"), [("INIT", "init"), ("VAL", "validate")])
def test_stages_without_rounds_have_none(state: str, stage: str) -> None:
    busy = worker("w2", a_job(head=head(state=state)))

    assert (busy.stage, busy.round, busy.slot) == (stage, None, 1)


def test_worker_that_did_not_announce_itself_is_shown_without_host() -> None:
    unknown = worker("w2", a_job(), nodes=[])

    assert (unknown.host, unknown.device, unknown.stage) == ("", "cpu", "train")


def test_speed_is_that_of_the_slots_held_in_this_round_or_the_last() -> None:
    # w1 handed in 100 rows after 500 ms of this round, w2 after 1 s of the last.
    assert worker("w1", a_job()).samples_per_s == 200
    assert worker("w2", a_job()).samples_per_s == 100
    assert worker("w3", a_job()).samples_per_s is None


def test_several_slots_of_a_round_are_added_up() -> None:
    job = a_job(
        leases={0: lease("w1", "", i=700.0), 1: lease("w1", "", i=1200.0)},
        contributions={0: given("w1", "t1"), 1: given("w1", "t1", samples=50)},
    )

    assert worker("w1", job).samples_per_s == pytest.approx(150 / 1.5)


def test_what_was_trained_ahead_took_time_as_well() -> None:
    job = a_job(contributions={}, merged=[merged("w1", "t1", ahead=0.5), merged("w2", "t2")])

    assert worker("w1", job).samples_per_s == 100


def test_speed_stays_from_the_view_before_while_nothing_new_is_known() -> None:
    new_epoch = a_job(head=head(epoch=2, round=0), contributions={}, merged=[], timing=None)
    before = view_pool(a_pool(a_job()), {})

    view = view_pool(a_pool(new_epoch), {}, earlier=before)
    other = view_pool(a_pool(replace(new_epoch, id="other")), {}, earlier=before)

    assert {w.name: w.samples_per_s for w in view.workers}["w2"] == 100
    assert {w.name: w.samples_per_s for w in other.workers}["w2"] is None


@pytest.mark.parametrize("samples", ["many", -5, None, True])
def test_contribution_with_an_odd_number_of_rows_breaks_nothing(samples: Any) -> None:
    job = a_job(contributions={0: given("w1", "t1", samples=samples)})

    assert the_job(job).progress == pytest.approx(0.2, abs=0.0011)


def test_workers_are_sorted_as_people_count() -> None:
    nodes = [node("w10"), node("w9"), node("a1", device="gpu")]

    view = view_pool(a_pool(nodes=nodes), {})

    assert [worker.name for worker in view.workers] == ["w9", "w10", "a1"]


# -- queues and the whole --------------------------------------------------------------------


def test_queues_have_the_processes_that_serve_them() -> None:
    view = view_pool(a_pool(), {})

    assert [(queue.name, queue.messages, queue.workers) for queue in view.queues] == [
        ("kubeml.train.cpu", 3, 3),
        ("kubeml.infer.gpu", 0, 1),
        ("kubeml.control", 0, 1),
        ("kubeml.ps", 1, 1),
    ]


def test_view_is_json() -> None:
    wire = view_pool(a_pool(a_job()), {"one": FACTS}).to_wire()

    assert json.loads(json.dumps(wire, allow_nan=False)) == wire
    assert wire["at"] == NOW_MS / 1000
    assert list(wire) == ["at", "jobs", "workers", "queues"]
