from typing import Any

import pytest

from brokers.shards.manifest import DatasetManifest
from kubeml.analysis.audit import EpochAudit, audit_epoch, row_faults
from kubeml.jobs.plan import epoch_plan
from kubeml.jobs.results import EpochRow
from kubeml.jobs.spec import JobSpec
from tests.unit.brokers.shards.test_manifest import make_split


def a_spec() -> JobSpec:
    return JobSpec(
        id="j", function="f", function_sha256="0" * 64, entry="f.py", dataset="d",
        dataset_version="v", epochs=2, batch_size=4, lr=0.1, parallelism=3, k=2, seed=5,
    )  # fmt: skip


def a_row(epoch: int = 1, sha256: str = "aa") -> EpochRow:
    return EpochRow(
        epoch=epoch, parallelism=3, num_workers=2, rounds=1, steps=1, samples=1, train_loss=0.0,
        val_loss=None, accuracy=None, duration_s=1.0, validation_s=0.0, retries=0, decision="",
        weights_sha256=sha256, ended_at=0.0,
    )  # fmt: skip


@pytest.fixture
def manifest() -> DatasetManifest:
    return DatasetManifest(
        name="mnist", version="v1", created_at=0.0, train=make_split(shard_rows=(20, 13)),
        test=make_split("test"),
    )  # fmt: skip


@pytest.fixture
def ledger(manifest: DatasetManifest) -> dict[str, Any]:
    plan = epoch_plan(a_spec(), manifest, 1, 3)
    return {
        "epoch": 1,
        "gen": 2,
        "rounds": {
            str(index): [
                {"slot": slot, "worker": f"w{slot % 2}", "samples": plan.num_samples(index, slot)}
                for slot in range(plan.want(index))
            ]
            for index in range(plan.num_rounds)
        },
        "failed": [
            {"stage": "RUN", "round": 0, "slot": 1, "attempt": 1, "worker": "w0", "token": "t",
             "kind": "lost", "why": "it died", "at": 1.0}
        ],
    }  # fmt: skip


def audited(manifest: DatasetManifest, ledger: dict[str, Any] | None) -> EpochAudit:
    return audit_epoch(a_spec(), manifest, a_row(), ledger)


def test_a_complete_ledger_counts_every_row_once(
    manifest: DatasetManifest, ledger: dict[str, Any]
) -> None:
    found = audited(manifest, ledger)

    assert (found.counted_0, found.counted_1, found.counted_more) == (0, found.rows, 0)
    assert found.faults == []
    assert found.gen == 2
    assert sum(share.rows for share in found.shares) == found.rows
    assert found.failed[0].kind == "lost"


def test_a_slot_that_was_left_out_shows(manifest: DatasetManifest, ledger: dict[str, Any]) -> None:
    gone = ledger["rounds"]["0"].pop()

    found = audited(manifest, ledger)

    assert found.counted_0 == gone["samples"] > 0
    assert "counted 0 times" in found.faults[0]


def test_a_slot_merged_twice_shows(manifest: DatasetManifest, ledger: dict[str, Any]) -> None:
    ledger["rounds"]["0"].append(ledger["rounds"]["0"][0])

    found = audited(manifest, ledger)

    assert found.counted_more == ledger["rounds"]["0"][0]["samples"]


@pytest.mark.parametrize(("index", "slot"), [("99", 0), ("0", 9)])
def test_work_outside_the_plan_shows(
    manifest: DatasetManifest, ledger: dict[str, Any], index: str, slot: int
) -> None:
    ledger["rounds"].setdefault(index, []).append({"slot": slot, "worker": "w", "samples": 1})

    assert "not in the plan" in audited(manifest, ledger).faults[0]


def test_a_slot_with_fewer_rows_than_planned_shows(
    manifest: DatasetManifest, ledger: dict[str, Any]
) -> None:
    ledger["rounds"]["0"][0]["samples"] -= 1

    assert "handed in" in audited(manifest, ledger).faults[0]


def test_a_missing_ledger_shows(manifest: DatasetManifest) -> None:
    found = audited(manifest, None)

    assert found.counted_0 == found.rows
    assert "no ledger" in found.faults[0]


def test_history_and_checkpoints_must_agree() -> None:
    rows = [a_row(1, "aa"), a_row(2, "bb")]

    assert row_faults(rows, {1: "aa", 2: "bb"}) == []
    assert "no checkpoint" in row_faults(rows, {1: "aa"})[0]
    assert "other weights" in row_faults(rows, {1: "aa", 2: "cc"})[0]
    assert "epochs [1, 1]" in row_faults([rows[0], rows[0]], {1: "aa"})[0]
