"""The plans of a job's epochs, as every party of the job computes them. Pure."""

from collections.abc import Iterator

from brokers.manifest import DatasetManifest, Split
from kubeml.job import JobSpec
from kubeml.plan import EpochPlan

#: Shards of one shuffle window: about 1 GB, which fits a worker's cache many times over.
WINDOW_SHARDS = 64


def epoch_plan(spec: JobSpec, manifest: DatasetManifest, epoch: int, num_slots: int) -> EpochPlan:
    """The plan of a training epoch, as every party of the job computes it."""
    return EpochPlan(
        seed=spec.seed,
        epoch=epoch,
        shard_rows=manifest.train.shard_rows,
        num_slots=num_slots,
        k=spec.k,
        batch_size=spec.batch_size,
        shuffle=spec.shuffle,
        window_shards=WINDOW_SHARDS,
    )


def validation_plan(spec: JobSpec, manifest: DatasetManifest, num_slots: int) -> EpochPlan:
    """The plan of a validation: the whole test set once, in order, in one round.

    It has the slots of the epoch, or one for each test row where there are fewer.
    """
    return EpochPlan(
        seed=spec.seed,
        epoch=0,
        shard_rows=manifest.test.shard_rows,
        num_slots=min(num_slots, manifest.test.num_rows),
        k=-1,
        batch_size=spec.batch_size,
        shuffle=False,
    )


def shards_ahead(
    spec: JobSpec,
    manifest: DatasetManifest,
    *,
    epoch: int,
    num_slots: int,
    round_index: int = 0,
    slot: int = 0,
) -> Iterator[tuple[Split, int]]:
    """Shards that a slot needs from a round on, in order: this epoch's, validation's, the next's.

    A guess past this epoch: slots may change hands, and their number too.
    """
    for shard in epoch_plan(spec, manifest, epoch, num_slots).shards_from(round_index, slot):
        yield "train", shard
    validation = validation_plan(spec, manifest, num_slots)
    if spec.validation_due(epoch) and slot < validation.num_slots:
        for shard in validation.shards_from(0, slot):
            yield "test", shard
    if epoch < spec.epochs:
        for shard in epoch_plan(spec, manifest, epoch + 1, num_slots).shards_from(0, slot):
            yield "train", shard
