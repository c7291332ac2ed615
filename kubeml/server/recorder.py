"""Records an epoch (checkpoint, history row, ledger) and a job's end, exactly once each."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from brokers import fail_points
from brokers.rounds.contribution import Contribution
from brokers.rounds.snapshot import Snapshot
from brokers.rounds.store import RoundStore
from brokers.rounds.streams import JobStreams
from brokers.tensors.channel import TensorChannel
from brokers.tensors.reference import TensorRef
from kubeml.jobs.checkpoint import Buffer, Checkpoint, Checkpoints
from kubeml.jobs.records import JobRecords
from kubeml.jobs.results import EpochRow, JobEnd
from kubeml.jobs.round_times import epoch_phases
from kubeml.jobs.spec import JobSpec, State
from kubeml.weights.layout import Layout


class EpochRecorder:
    """Writes lasting records. Every method may be repeated: the first writer of a record wins."""

    def __init__(
        self,
        records: JobRecords,
        checkpoints: Checkpoints,
        store: RoundStore,
        channel: TensorChannel,
        streams: JobStreams,
    ) -> None:
        self._records = records
        self._checkpoints = checkpoints
        self._store = store
        self._channel = channel
        self._streams = streams

    def record(
        self,
        spec: JobSpec,
        snap: Snapshot,
        layout: Layout,
        origin: Checkpoint | None,
        weights: Buffer,
        validation: Sequence[Contribution],
    ) -> EpochRow | None:
        """Write the checkpoint and history row of the epoch that has just been trained.

        Args:
            spec: The job's spec.
            snap: The job's state: END, or VAL with every slot's statistics handed in.
            layout: The network's layout.
            origin: The checkpoint of epoch 0 (it holds the frozen tensors).
            weights: The merged weights blob.
            validation: The validation slots' contributions; empty if none was due.

        Returns:
            The row that is in the history now; None if the job has moved on meanwhile, and nothing
            was written.
        """
        epoch = snap.head.epoch
        written = self._records.row(spec.id, epoch)
        if written is not None and self._checkpoints.at(spec.id, epoch) is not None:
            return written
        live = self._store.ledger()
        ledger = _parsed(live.merged)
        if self._store.head().rid != snap.rid:
            # What was read may belong to another round, or may be gone with a lost Redis.
            return None
        timings = _parsed(live.timings)
        row = _row(snap, ledger, timings, validation, hashlib.sha256(weights).hexdigest())
        fail_points.reach("before_checkpoint")
        book = {
            "epoch": epoch,
            "gen": int(snap.gen),
            "rounds": ledger,
            "failed": live.failed_attempts(),
            "timings": timings,
            "planning_ms": snap.head.planning_ms,
        }
        row = self._records.add_row(spec.id, row, book)
        # The checkpoint goes last: a rebuilt job goes on after it, so the row must exist by then.
        if self._checkpoints.at(spec.id, epoch) is None:
            self._write(snap, layout, origin, weights, epoch)
        if row.accuracy is not None:
            self._streams.emit("validated", epoch=epoch, accuracy=row.accuracy, loss=row.val_loss)
        self._streams.emit("checkpoint", epoch=epoch, row=row.to_wire())
        return row

    def record_stop(
        self, snap: Snapshot, layout: Layout, origin: Checkpoint | None, weights: Buffer
    ) -> None:
        """Write the last merged weights of a job that is being stopped within an epoch."""
        epoch = snap.head.epoch
        last = self._checkpoints.latest(self._store.job_id)
        if last is None or last.version != snap.head.version:
            self._write(snap, layout, origin, weights, "stop", epoch=epoch)

    def conclude(self, spec: JobSpec, snap: Snapshot) -> JobEnd:
        """Write how the job ended, and its log."""
        rows = self._records.rows(spec.id)
        checkpoint, key = self._last_checkpoint(spec.id, State(snap.state))
        validated = [row for row in rows if row.accuracy is not None]
        now = time.time()
        end = JobEnd(
            state=State(snap.state),
            reason=snap.head.reason,
            epoch=len(rows),
            checkpoint=key,
            weights_sha256=checkpoint.weights.sha256 if checkpoint else "",
            accuracy=validated[-1].accuracy if validated else None,
            train_loss=rows[-1].train_loss if rows else None,
            val_loss=validated[-1].val_loss if validated else None,
            elapsed_s=max(0.0, now - spec.created_at),
            ended_at=now,
        )
        end = self._records.set_end(spec.id, snap.head.life, end, self._log())
        self._checkpoints.drop_unreferenced(spec.id)
        return end

    def _last_checkpoint(self, job_id: str, state: State) -> tuple[Checkpoint | None, str]:
        if state is State.STOPPED and (stopped := self._checkpoints.at(job_id, "stop")):
            return stopped, self._checkpoints.key(job_id, "stop")
        latest = self._checkpoints.latest(job_id)
        return latest, self._checkpoints.key(job_id, latest.epoch) if latest else ""

    def _log(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        since = "0"
        while batch := self._streams.lines(since=since):
            lines += [line.to_wire() for _, line in batch]
            since = batch[-1][0]
        return lines

    def _write(
        self,
        snap: Snapshot,
        layout: Layout,
        origin: Checkpoint | None,
        weights: Buffer,
        name: int | str,
        *,
        epoch: int | None = None,
    ) -> Checkpoint:
        job_id = self._store.job_id
        outer = None
        if snap.outer_state:
            blob = self._channel.pull(snap.outer_state)
            outer = self._checkpoints.put_blob(job_id, "outer", blob)
        optimizer = {
            slot: self._checkpoints.put_blob(
                job_id, f"optimizer-{slot}", self._channel.pull(TensorRef.from_json(text))
            )
            for slot, text in snap.optimizer.items()
        }
        checkpoint = Checkpoint(
            job_id=job_id,
            epoch=epoch if epoch is not None else snap.head.epoch,
            version=snap.head.version,
            layout=layout,
            weights=self._checkpoints.put_weights(job_id, layout, weights),
            frozen=origin.frozen if origin else None,
            outer_state=outer,
            optimizer=optimizer,
        )
        fail_points.reach("after_objects")
        published = self._checkpoints.publish(checkpoint, name)
        fail_points.reach("after_manifest")
        return published


def _parsed(texts: Mapping[int, str]) -> dict[int, Any]:
    return {index: json.loads(text) for index, text in sorted(texts.items())}


def _train_loss(merged: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean loss over the samples; None if there are none, or one is not finite."""
    samples = sum(entry["samples"] for entry in merged)
    if not samples or any(entry["loss"] is None for entry in merged):
        return None
    return float(sum(entry["loss"] * entry["samples"] for entry in merged) / samples)


def _row(
    snap: Snapshot,
    ledger: Mapping[int, list[dict[str, Any]]],
    timings: Mapping[int, Any],
    validation: Sequence[Contribution],
    weights_sha256: str,
) -> EpochRow:
    merged = [entry for entries in ledger.values() for entry in entries]
    samples = sum(entry["samples"] for entry in merged)
    validated = sum(c.num_samples for c in validation)
    in_validation_ms = snap.now_ms - snap.head.since if validation else 0.0
    phases, mean_workers = epoch_phases(ledger, timings)
    expected = snap.head.expected_s
    return EpochRow(
        epoch=snap.head.epoch,
        parallelism=snap.head.slots,
        num_workers=len({entry["worker"] for entry in merged}),
        rounds=len(ledger),
        steps=sum(entry["steps"] for entry in merged),
        samples=samples,
        train_loss=_train_loss(merged),
        val_loss=sum(c.loss * c.num_samples for c in validation) / validated if validated else None,
        accuracy=(
            sum(c.accuracy * c.num_samples for c in validation) / validated if validated else None
        ),
        duration_s=snap.head.trained_ms / 1000,
        validation_s=in_validation_ms / 1000,
        retries=snap.head.retries,
        decision=snap.head.decision,
        weights_sha256=weights_sha256,
        ended_at=snap.now_ms / 1000,
        expected_s=None if expected is None else round(expected, 6),
        mean_workers=mean_workers,
        phases=phases,
    )
