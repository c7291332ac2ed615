"""Check that the records on S3 are whole; ``kubeml doctor`` calls it.

It finds names without content, and jobs that no list would show. Neither comes from a crash, since
an object is always written before the objects that point to it. Both can come about if a bucket was
copied in another order (docs/how-to/back-up.md), or if somebody deleted objects.
"""

from collections.abc import Iterator
from contextlib import suppress

from brokers.objects.store import ObjectStore
from brokers.shards.manifest import SPLITS, DatasetManifest, version_prefix
from kubeml.backends import Backends
from kubeml.catalog.functions import BUNDLES, bundle_key
from kubeml.errors import KubemlError, NotFound


def record_faults(backends: Backends) -> Iterator[str]:
    """Yield what is missing, for people. ``task audit --verify`` checks an ended job more fully.

    Raises:
        BackendUnreachable, BackendRefused: From S3.
    """
    objects, records = backends.objects, backends.records
    bundles = {info.key for info in objects.list(BUNDLES)}
    for function in backends.functions.list():
        if bundle_key(function.sha256) not in bundles:
            yield f"function {function.name} has no code: kubeml function update"
    for manifest in backends.datasets.list():
        if count := _missing_shards(objects, manifest):
            yield f"dataset {manifest.name} lacks {count} shards: delete it and create it again"
    ids, finished = records.all_ids(), records.finished()
    # Checkpoints are listed after the jobs: those of an ended job were there before its end.
    there = {info.key for info in objects.list("checkpoints/")}
    for job_id in ids:
        status = finished.get(job_id)
        end = status.end if status else records.end(job_id)
        if end is not None:
            lacks = end.checkpoint and end.checkpoint not in there
            if lacks and records.end(job_id):  # else it was deleted meanwhile
                yield f"job {job_id} has ended, and its {end.checkpoint} is gone"
        elif job_id not in finished:
            yield f"job {job_id} has not ended and is on no list: kubeml history list puts it back"
        else:
            with suppress(NotFound):  # ended, and deleted, in this moment
                yield from _job_faults(backends, job_id, bundles, there)


def _missing_shards(objects: ObjectStore, manifest: DatasetManifest) -> int:
    prefix = version_prefix(manifest.name, manifest.version)
    there = {info.key: info.size for info in objects.list(prefix)}
    shards = [shard for split in SPLITS for shard in manifest.split(split).shards]
    return sum(there.get(shard.key) != shard.num_bytes for shard in shards)


def _job_faults(
    backends: Backends, job_id: str, bundles: set[str], there: set[str]
) -> Iterator[str]:
    """Yield what a job would lack when it is to go on."""
    spec = backends.records.spec(job_id)
    if bundle_key(spec.function_sha256) not in bundles:
        yield f"job {job_id} lacks the code of its function {spec.function}"
    try:
        manifest = backends.datasets.at(spec.dataset, spec.dataset_version)
        if count := _missing_shards(backends.objects, manifest):
            yield f"job {job_id} lacks {count} shards of its dataset {spec.dataset}"
    except NotFound:
        yield f"job {job_id} lacks its dataset {spec.dataset}"
    try:
        checkpoint = backends.checkpoints.latest(job_id)
    except KubemlError as err:
        yield f"job {job_id}: its last checkpoint cannot be read: {err}"
        return
    # A checkpoint that was written after the objects were listed cannot be judged by the list.
    if checkpoint and backends.checkpoints.key(job_id, checkpoint.epoch) in there:
        lost = sorted(checkpoint.keys - there)
        if lost:
            yield f"job {job_id}: its last checkpoint lacks {', '.join(lost)}"
