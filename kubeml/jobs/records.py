"""What S3 holds of a job: its spec, generations, history rows, end and log. The durable truth.

active/{id}                    there from submission to the end: recovery looks for it
jobs/{id}/spec.json            what was asked for; written once
jobs/{id}/spec-{life:06d}.json the same for each later life: a job that ended and was resumed
jobs/{id}/gen-{n:06d}.json     one per generation, and why; create-only, so one rebuilder wins
jobs/{id}/scale-{n:06d}.json   what N and W may be, from then on: each time that was changed
jobs/{id}/end.json             how it ended; written once (end-{life:06d}.json in later lives)
jobs/{id}/log.jsonl            the function's log lines, when it has ended (log-{life:06d}.jsonl)
history/{id}/{epoch:06d}.json  one row per epoch; written once
history/{id}/ledger-{epoch:06d}.json   which worker trained what in it and when; failed attempts
finished/{id}.{life:06d}.{summary}     all that a list shows of an ended job, see ``summary``

The summaries are an index (``index``); the records are the truth. A job that is off the active list
has the summary of its last life, or none. If it has none, its records are read.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from brokers.objects.store import ObjectStore
from brokers.wire import is_job_id
from kubeml.errors import JobNotFound, ObjectExists, ObjectMissing
from kubeml.jobs.index import FinishedIndex
from kubeml.jobs.results import EpochRow, JobEnd, JobStatus
from kubeml.jobs.scale import Scale
from kubeml.jobs.spec import JobSpec
from kubeml.jobs.summary import LEFT_OUT, ended_status

_ROW = re.compile(r"/(\d{6})\.json$")
_LIFE = re.compile(r"/spec-(\d{6})\.json$")
_SCALE = re.compile(r"/scale-(\d{6})\.json$")
_GENERATION = re.compile(r"/gen-(\d{6})\.json$")

#: How many records are read at once: as many as an ``ObjectStore`` has connections.
PARALLEL_READS = 32


class JobRecords:
    """The records of all jobs."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._index = FinishedIndex(objects)

    def create(self, spec: JobSpec) -> None:
        """Write a new job's spec.

        Raises:
            ObjectExists: A job of this id was submitted before.
        """
        # The marker goes first. A submission that dies in between leaves a marker without a spec,
        # which recovery passes over. The other order would leave a job that no server looks after.
        self.activate(spec.id)
        self._objects.put_json(f"jobs/{spec.id}/spec.json", spec.to_wire(), create=True)

    def life(self, job_id: str) -> int:
        """Return the number of the job's life: 0, and one more each time it was resumed.

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
        """Write the spec of a job's next life: from now on the job has not ended.

        Raises:
            ObjectExists: Another process was faster.
        """
        self.activate(spec.id)
        key = _of_life(f"jobs/{spec.id}/spec", life, "json")
        self._objects.put_json(key, spec.to_wire(), create=True)
        # Once more: the process that wrote the last life's end may have taken the job off the
        # list in between.
        self.activate(spec.id)

    def spec(self, job_id: str, life: int | None = None) -> JobSpec:
        """Return a job's spec, by default that of its last life.

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
        """Claim the next generation of a job and return its number; None if another was faster."""
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

    def scale(self, spec: JobSpec) -> Scale:
        """Return what N and W of a job may be now; the spec's values if they were never changed."""
        prefix = f"jobs/{spec.id}/scale-"
        keys = [info.key for info in self._objects.list(prefix) if _SCALE.search(info.key)]
        if not keys:
            return Scale.of(spec)
        return Scale.from_wire(self._objects.get_json(max(keys)))

    def add_scale(self, job_id: str, scale: Scale) -> None:
        """Write what N and W of a job may be, under the scale's number.

        Raises:
            ObjectExists: Another process has written that number.
        """
        key = f"jobs/{job_id}/scale-{scale.number:06d}.json"
        self._objects.put_json(key, scale.to_wire(), create=True)

    def generations(self, job_id: str) -> list[dict[str, Any]]:
        """Return every claimed generation: its number, its reason, and when, in Unix seconds."""
        return [
            {"gen": int(match[1]), **self._objects.get_json(info.key)}
            for info in self._objects.list(f"jobs/{job_id}/gen-")
            if (match := _GENERATION.search(info.key))
        ]

    def ledger(self, job_id: str, epoch: int) -> dict[str, Any] | None:
        """Return the ledger of an epoch; None if there is none."""
        try:
            ledger = self._objects.get_json(f"history/{job_id}/ledger-{epoch:06d}.json")
        except ObjectMissing:
            return None
        return ledger if isinstance(ledger, dict) else None

    def active(self) -> list[str]:
        """Return the ids of the jobs that were submitted and have not ended."""
        return [info.key.removeprefix("active/") for info in self._objects.list("active/")]

    def activate(self, job_id: str) -> None:
        """Put a job that has not ended on the active list, where a parameter server finds it."""
        self._objects.put(f"active/{job_id}", b"")

    def put_back(self, job_id: str) -> None:
        """Put a job back on the active list if it has not ended, and was not deleted."""
        self.activate(job_id)
        if not self._objects.exists(f"jobs/{job_id}/spec.json"):
            # It was deleted meanwhile: its end was gone already when we looked for it.
            self._objects.delete([f"active/{job_id}"])

    def deactivate(self, job_id: str) -> None:
        """Take a job that ended, or never began, off the active list, unless it was resumed."""
        # The summary goes first: that of an earlier life must not stand for an inactive job.
        self.summarise(job_id)
        self._objects.delete([f"active/{job_id}"])
        if self.end(job_id) is None:
            # It was resumed at this very moment: recovery must find it.
            self.put_back(job_id)

    def summarise(self, job_id: str) -> None:
        """Write the summary of a job's last life, if that has ended."""
        try:
            life = self.life(job_id)
        except JobNotFound:
            return
        end = self.end(job_id, life)
        if end is None:
            return
        spec, last = self.spec(job_id, life), self.last_row(job_id, end.epoch)
        key = self._index.add(ended_status(spec, end, last), life)
        if not self._objects.exists(_of_life(f"jobs/{job_id}/spec", life, "json")):
            # It was deleted meanwhile, after ``delete`` had looked for summaries the last time.
            self._index.drop(key)
        elif life:
            # Only those of earlier lives: a late process must not remove a later life's summary.
            self._index.drop_before(job_id, life)

    def finished(self) -> dict[str, JobStatus | None]:
        """Return the jobs that have a summary or are active, to the status in the summary.

        The status is None if the records must be read. A job that was deleted this moment may be
        included. Jobs that ended before kubeml wrote summaries are not.
        """
        # Active jobs are listed first: a job that is not active by then has its last summary.
        jobs: dict[str, JobStatus | None] = dict.fromkeys(self.active())
        latest = self._index.read(but=jobs)
        jobs |= {job_id: job for job_id, (_, job) in latest.items()}
        cut = [job for job in jobs.values() if job and job.reason == LEFT_OUT]
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            whole = pool.map(lambda job: self._with_reason(job, latest[job.id][0]), cut)
            return jobs | dict(zip((job.id for job in cut), whole, strict=True))

    def _with_reason(self, job: JobStatus, life: int) -> JobStatus | None:
        end = self.end(job.id, life)
        return None if end is None else ended_status(job.spec, end, job.last)

    def all_ids(self) -> list[str]:
        """Return the ids of all jobs that have a record."""
        return list(self._objects.list_names("jobs/"))

    def add_row(self, job_id: str, row: EpochRow, ledger: dict[str, Any]) -> EpochRow:
        """Write an epoch's ledger and row, and return the row that is there now.

        A row that exists stays: an earlier attempt has recorded the epoch.
        """
        key = f"history/{job_id}/{row.epoch:06d}.json"
        # Both are create-only: a late parameter server may have the next epoch's ledger by now.
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
        """Return the row of one epoch; None if it was not recorded."""
        try:
            return EpochRow.from_wire(self._objects.get_json(f"history/{job_id}/{epoch:06d}.json"))
        except ObjectMissing:
            return None

    def last_row(self, job_id: str, epoch: int) -> EpochRow | None:
        """Return the row of an epoch, or of the one before if the epoch is under way."""
        rows = (self.row(job_id, e) for e in (epoch, epoch - 1) if e >= 1)
        return next((row for row in rows if row is not None), None)

    def rows(self, job_id: str) -> list[EpochRow]:
        """Return all rows of a job, by epoch."""
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
        return end

    def end(self, job_id: str, life: int | None = None) -> JobEnd | None:
        """Return how a life of a job ended, by default the last one; None while it has not."""
        try:
            life = self.life(job_id) if life is None else life
            key = _of_life(f"jobs/{job_id}/end", life, "json")
            return JobEnd.from_wire(self._objects.get_json(key))
        except (ObjectMissing, JobNotFound):
            return None

    def log_lines(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield the log of a job's ended lives, line by line."""
        for life in range(self.life(job_id) + 1):
            try:
                text = self._objects.get(_of_life(f"jobs/{job_id}/log", life, "jsonl")).decode()
            except ObjectMissing:
                continue
            for line in text.splitlines():
                yield json.loads(line)

    def delete(self, job_id: str) -> None:
        """Remove everything of a job, its checkpoints included."""
        # The summary goes first: without it, the rest of the job is still listed. And it goes once
        # more at last: a process that lists jobs meanwhile may write it again.
        self._index.drop_all(job_id)
        prefixes = (f"{folder}/{job_id}/" for folder in ("checkpoints", "history", "jobs"))
        keys = [info.key for prefix in prefixes for info in self._objects.list(prefix)]
        # Some servers keep an empty folder for a while, and it looks like a job without a spec.
        self._objects.delete([*keys, f"active/{job_id}", f"jobs/{job_id}/"])
        self._index.drop_all(job_id)


def _of_life(stem: str, life: int, suffix: str) -> str:
    return f"{stem}-{life:06d}.{suffix}" if life else f"{stem}.{suffix}"
