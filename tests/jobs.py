"""Records of jobs that no worker ever saw."""

import hashlib

from kubeml.jobs.results import EpochRow, JobEnd
from kubeml.jobs.spec import JobSpec, State


def make_spec(job_id: str, *, function: str = "lenet", created_at: float = 1.5) -> JobSpec:
    return JobSpec(
        id=job_id, function=function, function_sha256=sha256(function), entry=f"{function}.py",
        dataset="mnist", dataset_version="20261124T065000Z-0a1b2c3d", epochs=2, batch_size=64,
        lr=0.01, created_at=created_at,
    )  # fmt: skip


def make_row(epoch: int, *, train_loss: float = 0.25) -> EpochRow:
    return EpochRow(
        epoch=epoch, parallelism=2, num_workers=2, rounds=30, steps=60, samples=60_000,
        train_loss=train_loss, val_loss=0.3, accuracy=91.2345678901, duration_s=12.34567890123,
        validation_s=0.1, retries=0, decision="static", weights_sha256=sha256("weights"),
        ended_at=1795000000.123456,
    )  # fmt: skip


def make_end(
    job_id: str, *, state: State = State.DONE, reason: str = "", accuracy: float = 91.2345678901
) -> JobEnd:
    return JobEnd(
        state=state, reason=reason, epoch=2, checkpoint=f"checkpoints/{job_id}/000002.json",
        weights_sha256=sha256("weights"), accuracy=accuracy, train_loss=0.25, val_loss=0.3,
        elapsed_s=31.23456789, ended_at=1795000000.654321,
    )  # fmt: skip


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
