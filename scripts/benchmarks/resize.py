"""How soon a job has more or fewer workers or slots, and how soon a second one has its first."""

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brokers.pool.workload import busy_workers
from brokers.rounds.head import Head
from brokers.rounds.store import RoundStore
from kubeml.client.client import Client
from kubeml.client.job import Job
from scripts.benchmarks import paced, pool
from scripts.benchmarks.ledgers import Round
from scripts.benchmarks.patience import WITHIN_S, patiently, wait_until
from scripts.benchmarks.report import all_series, publish
from scripts.benchmarks.workers import Workers

#: Steps of a slot's round: half a second, so that it matters what can be interrupted.
K = 25
SLOT_S = K * paced.STEP_S

#: In an epoch of a job with N=4: one of K steps, and a last one of half as many.
ROUNDS = 2

COUNTED = (
    "a static job, a slot's round takes 0.5 s (it sleeps: cores are not what is waited for);"
    " function and data are in the workers' cache, and workers import torch when they start",
    "times of slots and rounds are the state server's, from the ledger; here it is our clock",
    "joins: N=4 on 2 workers, a third is started; from the start of its process, and from when it"
    " is ready for work, to the first slot that it holds",
    "leaves: the third is told to go (SIGTERM) or killed (SIGKILL) while it holds a slot, by turns"
    " in the first round of an epoch and in the last, whose slots take half as long; until another"
    " holds that slot, and until that round is merged, which takes about 1 s undisturbed (0.5 s);"
    " without --hedge, nobody holds the slot of a dead worker before its lease has run out",
    "up, down: `Job.scale()` 2 -> 4 and 4 -> 2 on 4 workers anywhere in an epoch of 1.5 s,"
    " to the first slot of the epoch with the new N, and its two parts: until the epoch under way"
    " has ended, since N changes between epochs alone, and from then on",
    "preemption: N=2 on 2 workers, a second job is submitted, of the same weight; from just before"
    " `Client.train()` to its first slot (the making of its weights), and to its first trained one",
)

Found = dict[str, list[float]]


class Change(NamedTuple):
    """Something that was done to a job: a worker joined or left, or N was changed.

    Attributes:
        what: join, SIGTERM or SIGKILL; up or down.
        at_s: When, Unix seconds.
        worker: Whom it was about.
        ready_at_s: When a worker that joined was ready for work.
        slots: N from then on.
        held: (epoch, round, slot) that the worker held.
    """

    what: str
    at_s: float
    worker: str = ""
    ready_at_s: float = 0.0
    slots: int = 0
    held: Sequence[tuple[int, int, int]] = ()


def run(options: argparse.Namespace) -> None:
    """Each change many times over."""
    repeat = options.repeat or (2 if options.quick else 10)
    rng = random.Random(0)  # noqa: S311 - no secret
    found: Found = defaultdict(list)
    with pool.embedded_stack(workers=0) as client:
        paced.put(client)
        workers = Workers(client)
        try:
            workers.wait_for(*(workers.start() for _ in range(2)))
            signals = ("SIGTERM", "SIGKILL") * (repeat * ROUNDS)
            _add(found, joins_and_leaves(client, workers, signals, rng))
            dies = joins_and_leaves(client, workers, ("SIGKILL",) * repeat, rng, hedge=False)
            _add(found, {f"{name}, no hedge": v for name, v in dies.items() if "KILL" in name})
            _add(found, preemptions(client, repeat))
            workers.wait_for(*(workers.start() for _ in range(2)))
            _add(found, scalings(client, repeat, rng))
        finally:
            workers.retire()
    publish(
        options, COUNTED, list(all_series(found, "s").values()),
        facts={"job": f"batch 16, K={K}, {1000 * paced.STEP_S:.0f} ms a step, lease 6 s"},
    )  # fmt: skip


def joins_and_leaves(
    client: Client, workers: Workers, signals: Sequence[str], rng: random.Random, **options: Any
) -> Found:
    """A third worker comes, and goes or dies, again and again."""
    job = _submit(client, parallelism=4, **options)
    wait_until(lambda: len(_busy(client, job)) == 2)
    changes = []
    for number, signal_ in enumerate(signals):
        wanted = number // len(set(signals)) % ROUNDS
        at_s = time.time()
        name = workers.start()
        wait_until(lambda name=name: workers.is_ready(name))
        changes.append(Change(what="join", at_s=at_s, worker=name, ready_at_s=time.time()))
        wait_until(lambda name=name: name in _busy(client, job))
        # The ledger is to have something that it handed in.
        _wait_for_rounds(client, job, 2)
        wait_until(lambda name=name, wanted=wanted: _holds_in(wanted, held(client, job, name)))
        time.sleep(rng.uniform(0.0, SLOT_S / (4 if wanted else 2)))
        slots = held(client, job, name)
        left_at_s = (workers.kill if signal_ == "SIGKILL" else workers.terminate)(name)
        changes.append(Change(what=signal_, at_s=left_at_s, worker=name, held=slots))
        _wait_for_rounds(client, job, 3)
        if signal_ == "SIGTERM":
            workers.retire(name)
    return changes_seen(changes, _end(client, job))


def changes_seen(changes: Sequence[Change], rounds: Sequence[Round]) -> Found:
    """How long it took until workers that came held a slot, and others those of workers that went.

    Args:
        changes: Workers that joined and left.
        rounds: The job's. A slot that was handed in just before its worker left is left out.
    """
    by_place = {(r.epoch, r.round): r for r in rounds}
    found: Found = defaultdict(list)
    for change in changes:
        if change.what == "join":
            first_s = min(
                h.begin_s for r in rounds for h in r.holdings if h.worker == change.worker
            )
            found["worker started -> holds a slot"].append(first_s - change.at_s)
            found["worker ready -> holds a slot"].append(max(0.0, first_s - change.ready_at_s))
        for epoch, number, slot in change.held:
            round_ = by_place[epoch, number]
            after = round_.holdings[slot]
            if after.worker != change.worker:
                # Somebody may have begun with a copy before.
                wait_s = max(0.0, after.begin_s - change.at_s)
                where = f"{change.what}, {'last' if number else 'first'} round"
                found[f"{where} -> slot held by another"].append(wait_s)
                found[f"{where} -> round merged"].append(round_.merged_s - change.at_s)
    return found


def scalings(client: Client, repeat: int, rng: random.Random) -> Found:
    """N is doubled and halved, again and again."""
    job = _submit(client, parallelism=2)
    _wait_for_rounds(client, job, 2)
    changes = []
    for turn in range(2 * repeat):
        slots = 2 if turn % 2 else 4
        time.sleep(rng.uniform(0.0, 1.5))
        changes.append(Change(what="down" if turn % 2 else "up", at_s=time.time(), slots=slots))
        job.scale(slots)
        wait_until(lambda slots=slots: _head(client, job).get("slots") == str(slots))
        _wait_for_rounds(client, job, 1)
    return scalings_seen(changes, _end(client, job))


def scalings_seen(changes: Sequence[Change], rounds: Sequence[Round]) -> Found:
    """How long it took until an epoch had the new N."""
    found: Found = defaultdict(list)
    firsts = [r for r in rounds if r.round == 0]
    lasts = {r.epoch: r for r in rounds}
    for change in changes:
        first = next(
            r for r in firsts if r.opened_s > change.at_s and len(r.holdings) == change.slots
        )
        ended_s = max(change.at_s, lasts[first.epoch - 1].merged_s)
        begun_s = min(h.begin_s for h in first.holdings)
        name = f"scale {change.what}"
        found[f"{name} -> first slot"].append(begun_s - change.at_s)
        found[f"{name}: until the epoch has ended"].append(ended_s - change.at_s)
        found[f"{name}: from then on"].append(begun_s - ended_s)
        all_s = max(h.begin_s for h in first.holdings)
        found[f"{name}: from then on, all slots held"].append(all_s - ended_s)
    return found


def preemptions(client: Client, repeat: int) -> Found:
    """A second job is submitted while a first one has all workers, again and again."""
    first = _submit(client, parallelism=2)
    found: Found = defaultdict(list)
    for _ in range(repeat):
        _wait_for_rounds(client, first, 3)
        at_s = time.time()
        second = _submit(client, parallelism=2, epochs=1)
        wait_until(lambda second=second: bool(_busy(client, second)))
        found["second job submitted -> first slot"].append(time.time() - at_s)
        second.wait(WITHIN_S)
        begun_s = min(h.begin_s for r in pool.rounds(client, second) for h in r.holdings)
        found["second job submitted -> first trained slot"].append(begun_s - at_s)
    pool.stop(first)
    return found


def held(client: Client, job: Job, worker: str) -> list[tuple[int, int, int]]:
    """(epoch, round, slot) of the slots that a worker holds now."""
    store = RoundStore(client.backends.redis, job.id)
    before = store.head()
    leases: Mapping[bytes, bytes] = client.backends.redis.hgetall(store.key("s"))
    if store.head().rid != before.rid:
        return []
    place = before.epoch, before.round
    records = {int(slot): json.loads(text) for slot, text in leases.items()}
    return [(*place, slot) for slot, r in records.items() if r["t"] and r.get("w") == worker]


def _holds_in(round_number: int, places: Sequence[tuple[int, int, int]]) -> bool:
    return any(number == round_number for _, number, _ in places)


def _submit(client: Client, *, parallelism: int, epochs: int = 10_000, **options: Any) -> Job:
    return pool.submit(
        client, paced.FUNCTION, dataset=paced.DATASET, epochs=epochs, parallelism=parallelism,
        max_parallelism=16, k=K, batch_size=16, **options,
    )  # fmt: skip


def _end(client: Client, job: Job) -> list[Round]:
    """Stop a job once the epoch under way is on record; its rounds."""
    epoch = _head(client, job).epoch
    wait_until(lambda: _head(client, job).epoch > epoch)
    pool.stop(job)
    return pool.rounds(client, job)


def _busy(client: Client, job: Job) -> set[str]:
    return busy_workers(client.backends.redis, [job.id])


def _head(client: Client, job: Job) -> Head:
    return RoundStore(client.backends.redis, job.id).head()


def _wait_for_rounds(client: Client, job: Job, number: int) -> None:
    """Wait until a job has merged so many more versions."""
    before = int(patiently(lambda: _head(client, job)).get("ver") or 0)
    wait_until(lambda: int(_head(client, job).get("ver") or 0) >= before + number)


def _add(found: Found, more: Found) -> None:
    for name, values in more.items():
        found[name] += values
