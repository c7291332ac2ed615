"""What a worker process keeps warm from task to task: connections, caches, loaded functions."""

import logging
import os
import socket
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from brokers.shards.cache import ShardCache
from brokers.shards.prefetch import ShardPrefetcher
from brokers.shards.reader import DatasetManifest, ShardReader
from brokers.tensors.channel import TensorChannel
from brokers.tensors.chunks import Buffer
from brokers.tensors.reference import TensorRef
from kubeml.backends import Backends
from kubeml.errors import BackendUnreachable
from kubeml.jobs.plan import stream_seed
from kubeml.jobs.spec import JobSpec
from kubeml.machine import memory_limit, resident_bytes
from kubeml.metrics.worker_book import WorkerBook
from kubeml.sdk.context import JobArgs
from kubeml.worker.function_log import FunctionLog, function_logger

if TYPE_CHECKING:
    from kubeml.runtime.function import FunctionRuntime

#: How many blobs are kept in memory: those of the slots served last.
_KEPT = 2


class SlotBlobs:
    """Each slot's last pushed blob and its reference: optimizer states, or local weights."""

    def __init__(self) -> None:
        self._blobs: dict[int, tuple[str, bytes | bytearray]] = {}

    def keep(self, slot: int, reference: str, blob: bytes | bytearray) -> None:
        """Remember a blob that was just pushed. It must not be changed any more."""
        self._blobs.pop(slot, None)
        self._blobs[slot] = (reference, blob)
        while len(self._blobs) > _KEPT:
            del self._blobs[next(iter(self._blobs))]

    def get(self, slot: int, reference: str, channel: TensorChannel) -> bytes | bytearray:
        """Return the blob, from memory if this process made it, else from the state server.

        Raises:
            ChunksMissing, Corrupted: It is missing, or not what the reference says.
        """
        made = self._blobs.get(slot)
        if made is not None and made[0] == reference:
            return made[1]
        return channel.pull(TensorRef.from_json(reference))


logger = logging.getLogger(__name__)

#: How many loaded functions are kept warm; the least recently used is dropped first.
_WARM_JOBS = 3

#: A broker that did not answer is left alone for this long.
_BROKER_PAUSE_S = 5.0

#: An answer is good for this long: rounds may be shorter than the question takes.
_ASK_BROKER_EVERY_S = 0.2


@dataclass
class WarmJob:
    """A job as this process knows it.

    Attributes:
        spec: Its spec.
        manifest: The manifest of its dataset.
        runtime: Its loaded function.
        log: The handler that ``self.logger`` writes to.
        prefetcher: Fetches the shards that it will train on soon.
        weights: Reference of the weights that the network holds or that were fetched last.
        blob: The blob of these weights.
        contribution: Memory of the last contribution, for use by the next one.
        optimizer: The optimizer states that this process made last.
        local: The local weights (``--overlap``) that it made last.
        has_frozen: Whether the frozen tensors were loaded.
        sha256: Hash of the weights loaded for inference.
    """

    spec: JobSpec
    manifest: DatasetManifest
    runtime: "FunctionRuntime"
    log: FunctionLog
    prefetcher: ShardPrefetcher
    weights: TensorRef | None = None
    blob: bytearray | None = None
    contribution: bytearray | None = None
    optimizer: SlotBlobs = field(default_factory=SlotBlobs)
    local: SlotBlobs = field(default_factory=SlotBlobs)
    has_frozen: bool = False
    sha256: str = ""

    def close(self) -> None:
        """Forget the function, and fetch no more shards."""
        self.prefetcher.close()
        self.runtime.close()


class Worker:
    """Connections and caches of one worker process. Make it after the fork."""

    def __init__(self, backends: Backends) -> None:
        self.backends, self.settings = backends, backends.settings
        self.name = self.settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"
        self.channel = TensorChannel(backends.redis)
        self._broker = backends.broker
        self.book = WorkerBook()
        self._ask_broker_at = 0.0
        self._queue_lengths = (0, 0)
        self._jobs: OrderedDict[tuple[str, str], WarmJob] = OrderedDict()

    @cached_property
    def memory_limit(self) -> int:
        """Bytes that this process may hold before it is replaced; read after every slot."""
        return memory_limit(self.settings)

    def job(self, job_id: str, gen: str) -> WarmJob:
        """Return the job, loaded; from memory if this process served it before.

        Raises:
            JobNotFound: There is no such job.
            UserCodeError: The user's ``main`` raised.
        """
        key = (job_id, gen)
        if key not in self._jobs:
            self._jobs[key] = self._load(job_id)
            while len(self._jobs) > _WARM_JOBS:
                _, oldest = self._jobs.popitem(last=False)
                oldest.close()
        self._jobs.move_to_end(key)
        return self._jobs[key]

    def forget(self, job_id: str) -> None:
        """Drop a job's loaded function, so that the next use starts afresh."""
        for key in [key for key in self._jobs if key[0] == job_id]:
            self._jobs.pop(key).close()

    def holds_too_much(self, job_id: str) -> bool:
        """Return whether this process holds more memory than it may; the log says so."""
        held, limit = resident_bytes(), self.memory_limit
        if held <= limit:
            return False
        logger.warning(
            "job %s: this process holds %d MiB, more than %d (KUBEML_MEMORY_BYTES): a fresh one"
            " takes its place. If the network needs so much, set more.",
            job_id,
            held >> 20,
            limit >> 20,
        )
        return True

    def queue_lengths(self) -> tuple[int, int]:
        """Return how many messages wait for this kind of worker, and how many of them for new jobs.

        Both are 0 while the broker does not answer.
        """
        if time.monotonic() < self._ask_broker_at:
            return self._queue_lengths
        try:
            self._queue_lengths = self.backends.dispatcher.queue_lengths(
                self._broker, self.settings.device
            )
            self._ask_broker_at = time.monotonic() + _ASK_BROKER_EVERY_S
        except BackendUnreachable as err:
            # Only fairness between jobs needs the numbers: training goes on without the broker.
            logger.warning("who waits is not known: %s", err)
            self._queue_lengths = (0, 0)
            self._ask_broker_at = time.monotonic() + _BROKER_PAUSE_S
        return self._queue_lengths

    def load_weights(self, warm: WarmJob, blob: Buffer) -> None:
        """Put a weights blob into the network; the first time, the frozen tensors too."""
        frozen = None
        if not warm.has_frozen and warm.runtime.layout.frozen:
            origin = self.backends.checkpoints.at(warm.spec.id, 0)
            if origin is not None and origin.frozen is not None:
                frozen = self.backends.checkpoints.tensors(origin.frozen)
        warm.runtime.load_weights(memoryview(blob), frozen)
        warm.has_frozen = True

    def _load(self, job_id: str) -> WarmJob:
        # Imported here: torch takes seconds, and the Celery parent imports this module too.
        import torch

        from kubeml.runtime.loading import load_function

        backends = self.backends
        spec = backends.records.spec(job_id)
        torch.set_num_threads(self.settings.torch_threads)
        manifest = backends.datasets.at(spec.dataset, spec.dataset_version)
        cache = ShardCache(self.settings.cache_dir / "shards", self.settings.cache_bytes)
        code = backends.functions.fetch(spec.function_sha256, self.settings.cache_dir / "functions")
        log = FunctionLog(self.name)
        reader = ShardReader(manifest, objects=backends.objects, cache=cache)
        runtime = load_function(
            code,
            entry=spec.entry,
            args=JobArgs(
                job_id=spec.id,
                lr=spec.lr,
                batch_size=spec.batch_size,
                num_slots=spec.parallelism,
                k=spec.k,
            ),
            reader=reader,
            device="cuda" if spec.device == "gpu" else "cpu",
            logger=function_logger(job_id, log),
            init_seed=stream_seed(spec.seed, "init"),
        )
        # In every process, not only where the job begins: init() may freeze or tie tensors.
        runtime.init()
        logger.info("job %s: function %s loaded", job_id, spec.function)
        return WarmJob(
            spec=spec,
            manifest=manifest,
            runtime=runtime,
            log=log,
            prefetcher=ShardPrefetcher(reader),
        )
