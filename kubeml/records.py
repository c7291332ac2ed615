"""What S3 holds of a job: its spec, generations, history rows, end and log. The durable truth.

active/{id}                    there from submission to the end: what recovery looks for
jobs/{id}/spec.json            what was asked for; written once
jobs/{id}/spec-{life:06d}.json the same for each later life: a job that ended and was resumed
jobs/{id}/gen-{n:06d}.json     one per generation, and why; create-only, so one rebuilder wins
jobs/{id}/end.json             how it ended; written once (end-{life:06d}.json in later lives)
jobs/{id}/log.jsonl            the function's log lines, when it has ended (log-{life:06d}.jsonl)
history/{id}/{epoch:06d}.json  one row per epoch; written once
history/{id}/ledger-{epoch:06d}.json   who trained what in it and when; failed attempts
"""

import json
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from brokers.objects import ObjectStore
from brokers.protocol import is_job_id
from kubeml.errors import JobNotFound, ObjectExists, ObjectMissing
from kubeml.job import EpochRow, JobEnd, JobSpec

_ROW = re.compile(r"/(\d{6})\.json$")
_LIFE = re.compile(r"/spec-(\d{6})\.json$")
_GENERATION = re.compile(r"/gen-(\d{6})\.json$")


class JobRecords:
    """The records of all jobs."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(self, spec: JobSpec) -> None:
        """Write a new job's spec.

        Raises:
            ObjectExists: A job of this id was submitted before.
        """
        # The marker first: a submission that dies in between leaves a marker without a spec,
        # which recovery passes over; the other order would leave a job nobody looks after.
        self._objects.put(f"active/{spec.id}", b"")
        self._objects.put_json(f"jobs/{spec.id}/spec.json", spec.to_wire(), create=True)

    def life(self, job_id: str) -> int:
        """Number of the job's life: 0, and one more each time it was resumed.

        Raises:
            JobNotFound: There is no such job.
        """
        if not is_job_id(job_id):
            raise JobNotFound(name=job_id)
        keys = [info.key for info in self._objects.list(f"jobs/{job_id}/spec")]
        if not keys:
            raise JobNotFound(name=job_id)
        return max(int(match[1]) if (match := _LIFE.search(key)) else 0 for key in keys)

    def add_life(self, spec: JobSpec, life: int) -> None:
        """Write what is asked for in a job's next life: from now on it has not ended.

        Raises:
            ObjectExists: Somebody else was faster.
        """
        self._objects.put(f"active/{spec.id}", b"")
        key = _of_life(f"jobs/{spec.id}/spec", life, "json")
        self._objects.put_json(key, spec.to_wire(), create=True)

    def spec(self, job_id: str, life: int | None = None) -> JobSpec:
        """A job's spec, of its last life unless another is asked for.

        Raises:
            JobNotFound: There is no such job.
        """
        life = self.life(job_id) if life is None else life
        try:
            key = _of_life(f"jobs/{job_id}/spec", life, "json")
            return JobSpec.from_wire(self._objects.get_json(key))
        except ObjectMissing as err:
            raise JobNotFound(name=job_id) from err

    def next_generation(self, job_id: str, *, why: str) -> int | None:
        """Claim the next generation of a job; None if another rebuilder was faster."""
        prefix = f"jobs/{job_id}/gen-"
        numbers = [
            int(match[1])
            for info in self._objects.list(prefix)
            if (match := _GENERATION.search(info.key))
        ]
        number = max(numbers, default=0) + 1
        try:
            self._objects.put_json(
                f"{prefix}{number:06d}.json", {"why": why, "at": time.time()}, create=True
            )
        except ObjectExists:
            return None
        return number

    def generations(self, job_id: str) -> list[dict[str, Any]]:
        """Every generation that was claimed: its number, why, and when (Unix seconds)."""
        return [
            {"gen": int(match[1]), **self._objects.get_json(info.key)}
            for info in self._objects.list(f"jobs/{job_id}/gen-")
            if (match := _GENERATION.search(info.key))
        ]

    def ledger(self, job_id: str, epoch: int) -> dict[str, Any] | None:
        """The ledger of an epoch; None if there is none."""
        try:
            ledger = self._objects.get_json(f"history/{job_id}/ledger-{epoch:06d}.json")
        except ObjectMissing:
            return None
        return ledger if isinstance(ledger, dict) else None

    def active(self) -> list[str]:
        """Ids of the jobs that were submitted and have not ended."""
        return [info.key.removeprefix("active/") for info in self._objects.list("active/")]

    def deactivate(self, job_id: str) -> None:
        """Take a job that has ended (or never began) off the active list."""
        self._objects.delete([f"active/{job_id}"])

    def all_ids(self) -> list[str]:
        """Ids of every job there is a record of."""
        return list(self._objects.list_names("jobs/"))

    def add_row(self, job_id: str, row: EpochRow, ledger: dict[str, Any]) -> EpochRow:
        """Write an epoch's ledger and row, and return the row that stands there now.

        A row that is there already stays: the epoch was recorded by an earlier attempt.
        """
        key = f"history/{job_id}/{row.epoch:06d}.json"
        # Create-only, both: a late parameter server may hold the next epoch's ledger by now.
        with suppress(ObjectExists):
            self._objects.put_json(
                f"history/{job_id}/ledger-{row.epoch:06d}.json", ledger, create=True
            )
        try:
            self._objects.put_json(key, row.to_wire(), create=True)
        except ObjectExists:
            return EpochRow.from_wire(self._objects.get_json(key))
        return row

    def row(self, job_id: str, epoch: int) -> EpochRow | None:
        """The row of one epoch, if it was recorded."""
        try:
            return EpochRow.from_wire(self._objects.get_json(f"history/{job_id}/{epoch:06d}.json"))
        except ObjectMissing:
            return None

    def rows(self, job_id: str) -> list[EpochRow]:
        """All rows of a job, by epoch."""
        keys = [i.key for i in self._objects.list(f"history/{job_id}/") if _ROW.search(i.key)]
        with ThreadPoolExecutor(8) as pool:
            return [EpochRow.from_wire(row) for row in pool.map(self._objects.get_json, keys)]

    def set_end(self, job_id: str, life: int, end: JobEnd, log: Iterable[dict[str, Any]]) -> JobEnd:
        """Write how a life of a job ended (the first writer wins); take it off the active list."""
        key = _of_life(f"jobs/{job_id}/end", life, "json")
        text = "".join(json.dumps(line) + "\n" for line in log)
        self._objects.put(_of_life(f"jobs/{job_id}/log", life, "jsonl"), text.encode())
        try:
            self._objects.put_json(key, end.to_wire(), create=True)
        except ObjectExists:
            end = JobEnd.from_wire(self._objects.get_json(key))
        self.deactivate(job_id)
        if self.life(job_id) > life:
            # Resumed in this very moment: recovery must find it.
            self._objects.put(f"active/{job_id}", b"")
        return end

    def end(self, job_id: str, life: int | None = None) -> JobEnd | None:
        """How a job ended, in its last life unless another is asked for; None while it has not."""
        try:
            life = self.life(job_id) if life is None else life
            key = _of_life(f"jobs/{job_id}/end", life, "json")
            return JobEnd.from_wire(self._objects.get_json(key))
        except (ObjectMissing, JobNotFound):
            return None

    def log_lines(self, job_id: str) -> Iterator[dict[str, Any]]:
        """The log of a job's ended lives, line by line."""
        for life in range(self.life(job_id) + 1):
            try:
                text = self._objects.get(_of_life(f"jobs/{job_id}/log", life, "jsonl")).decode()
            except ObjectMissing:
                continue
            for line in text.splitlines():
                yield json.loads(line)

    def delete(self, job_id: str) -> None:
        """Remove everything of a job, its checkpoints included."""
        for prefix in ("checkpoints", "history", "jobs"):
            self._objects.delete_prefix(f"{prefix}/{job_id}/")
        self._objects.delete([f"active/{job_id}"])


def _of_life(stem: str, life: int, suffix: str) -> str:
    return f"{stem}-{life:06d}.{suffix}" if life else f"{stem}.{suffix}"
