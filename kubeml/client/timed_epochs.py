"""A job's rows and ledgers, read for its explanation; the epoch under way comes from Redis."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from brokers.rounds.store import RoundStore
from kubeml.errors import BackendUnreachable, InvalidOption
from kubeml.jobs.records import JobRecords
from kubeml.jobs.results import EpochRow

TimedEpoch = tuple[EpochRow | None, Mapping[str, Any]]


def timed_epochs(
    records: JobRecords, store: RoundStore, *, only: int | None = None
) -> list[TimedEpoch]:
    """Each epoch's row (None while it is under way) and ledger, in order.

    Args:
        records: The jobs' records.
        store: The job's live state.
        only: Read this epoch alone, and the one after it.

    Raises:
        InvalidOption: The job has no such epoch.
    """
    rows = records.rows(store.job_id)
    last = rows[-1].epoch if rows else 0
    wanted = [row for row in rows if only is None or row.epoch in {only, only + 1}]
    epochs: list[TimedEpoch] = [
        (row, records.ledger(store.job_id, row.epoch) or _empty(row)) for row in wanted
    ]
    with suppress(BackendUnreachable):  # what is finished stands in S3
        under_way = _under_way(store)
        if under_way and under_way["epoch"] > last and _is_wanted(under_way["epoch"], only):
            epochs.append((None, under_way))
    if only is not None and only not in [ledger["epoch"] for _, ledger in epochs]:
        raise InvalidOption(
            option="--epoch",
            got=str(only),
            expected="an epoch of which a round is merged",
            hint=f"kubeml history get --id {store.job_id} shows the epochs",
        )
    return epochs


def _is_wanted(epoch: int, only: int | None) -> bool:
    return only is None or epoch in {only, only + 1}


def _empty(row: EpochRow) -> dict[str, Any]:
    return {"epoch": row.epoch, "gen": 0, "rounds": {}}


def _under_way(store: RoundStore) -> dict[str, Any] | None:
    """What the epoch that was planned last has merged so far, in the form of its ledger."""
    head, live = store.head(), store.ledger()
    after = store.head()
    if not head or not live.merged or (head.gen, head.epoch) != (after.gen, after.epoch):
        return None
    return {
        "epoch": head.epoch,
        "gen": int(head.gen),
        "parallelism": head.slots,
        "rounds": {str(index): json.loads(text) for index, text in live.merged.items()},
        "timings": {str(index): json.loads(text) for index, text in live.timings.items()},
        "planning_ms": head.planning_ms,
    }
