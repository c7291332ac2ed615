"""A finished job's summary as an S3 key, so that one LIST request reads a thousand of them. Pure.

finished/{id}.{life:06d}.{summary}   an empty object; "/" after every 250 characters

The summary is the job's spec, end and last history row, as JSON without defaults, deflated with a
dictionary, in base64url. Reading 10,000 of them takes 2 s; reading as many records takes 50 s.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from brokers.wire import is_job_id
from kubeml.errors import MalformedMessage
from kubeml.jobs.results import EpochRow, JobEnd, JobStatus
from kubeml.jobs.spec import JobSpec

#: The folder of the summaries.
ROOT = "finished/"

#: Some servers store each part of a key as a file, whose name has at most 255 bytes.
_PART_CHARS = 250
#: S3's bound of a key is 1024 bytes.
_MAX_CHARS = 1000
#: A longer reason, which is mostly a traceback, is only in the record of the end.
_MAX_REASON_CHARS = 200
_MAX_BYTES = 1 << 16

_NAME = re.compile(r"([^.]+)\.(\d{6})\.([A-Za-z0-9_-]*)")

# What summaries have in common, the most frequent last. It is part of the format: never change it.
_DICTIONARY = (
    b'"static":true,"shuffle":false,"goal_accuracy":99.0,"outer":"nesterov","outer_lr":'
    b'"outer_momentum":0.9,"optimizer_state":"carry","device":"gpu","max_errors":"seed":'
    b'"state":"FAILED","reason":"stopped by the user","state":"STOPPED","validate_every":0'
    b'"max_parallelism":16,"throughput""decision":"static","k":16,"parallelism":4,"entry":"main.py"'
    b'"lenet.py","dataset":"mnist","dataset_version":"20260101T000000Z-"last":null'
    b'{"spec":{"function":"","function_sha256":"","epochs":10,"batch_size":64,"lr":0.01,'
    b'"created_at":17},"end":{"state":"DONE","reason":"","epoch":1,"checkpoint":"checkpoints/'
    b'/00000.json","weights_sha256":"","accuracy":9,"train_loss":0.0,"val_loss":0.0,"elapsed_s":'
    b'"ended_at":17},"last":{"epoch":1,"parallelism":2,"num_workers":2,"rounds":1,"steps":,'
    b'"samples":,"train_loss":,"val_loss":,"accuracy":null,"duration_s":,"validation_s":0.0,'
    b'"retries":0,"decision":"","weights_sha256":"","ended_at":17}}'
)


def prefix(job_id: str) -> str:
    """Return the prefix of the keys of all summaries of this job, and of no other job."""
    return f"{ROOT}{job_id}."


def to_key(job: JobStatus, life: int) -> str:
    """Return the key of an ended job's summary.

    A summary that is too long for a key is left out: the key then says only that this life ended.

    Args:
        job: A job with its ``end``.
        life: The number of the life that ended so.
    """
    wire = job.to_wire()
    spec, end = wire["spec"], wire["end"]
    del spec["id"]
    if len(end["reason"]) > _MAX_REASON_CHARS:
        del end["reason"]
    if wire["last"] is not None:
        # The phases are long, and no list shows them.
        del wire["last"]["phases"]
    optional = {f.name: f.default for f in fields(JobSpec) if f.default is not MISSING}
    spec = {name: value for name, value in spec.items() if optional.get(name, MISSING) != value}
    text = json.dumps(
        {"spec": spec, "end": end, "last": wire["last"]}, separators=(",", ":"), allow_nan=False
    )
    name = f"{job.id}.{life:06d}.{_pack(text)}"
    if len(name) > _MAX_CHARS:
        name = f"{job.id}.{life:06d}."
    return ROOT + "/".join(
        name[start : start + _PART_CHARS] for start in range(0, len(name), _PART_CHARS)
    )


def from_key(key: str) -> tuple[str, int, JobStatus | None] | None:
    """Read the job, the life that ended, and the summary from a key.

    Returns:
        The three; None if the key is of something else. The summary is None if it was left out, or
        is of an unknown format. Its end's reason is "…" if only the record of the end has it.
    """
    match = _NAME.fullmatch(key.removeprefix(ROOT).replace("/", ""))
    if match is None or not is_job_id(match[1]):
        return None
    job_id, life = match[1], int(match[2])
    try:
        return job_id, life, _status(job_id, json.loads(_unpack(match[3])))
    except (ValueError, KeyError, TypeError, zlib.error, RecursionError, MalformedMessage):
        return job_id, life, None


#: Stands for a reason that is too long for a key.
LEFT_OUT = "…"


def _status(job_id: str, wire: Mapping[str, Any]) -> JobStatus:
    spec = JobSpec.from_wire({"id": job_id, **wire["spec"]})
    end = JobEnd.from_wire({"reason": LEFT_OUT, **wire["end"]})
    last = None if wire["last"] is None else EpochRow.from_wire(wire["last"])
    return ended_status(spec, end, last)


def ended_status(spec: JobSpec, end: JobEnd, last: EpochRow | None) -> JobStatus:
    """Return the status of a job that has ended."""
    return JobStatus(
        id=spec.id,
        state=end.state,
        reason=end.reason,
        spec=spec,
        epoch=end.epoch,
        last=last,
        end=end,
    )


def _pack(text: str) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DICTIONARY)
    packed = packer.compress(text.encode()) + packer.flush()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def _unpack(packed: str) -> bytes:
    content = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
    # Bounded: anybody with write access to the bucket may write a key that inflates without end.
    return zlib.decompressobj(-15, zdict=_DICTIONARY).decompress(content, _MAX_BYTES)
