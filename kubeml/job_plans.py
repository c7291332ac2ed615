"""The plans of a job's epochs, as every party of the job computes them. Pure."""

from brokers.manifest import DatasetManifest
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
