"""Checkpoints in S3: safetensors objects of unique names, and one small manifest per epoch.

    checkpoints/{job}/{epoch:06d}.json     manifest; create-only, epoch 0 is the initial weights
    checkpoints/{job}/objects/{uuid}-*     the objects that manifests point to

Parameter servers write them at the end of each epoch; recovery and inference read them. A parameter
server that was thought dead may still write objects, but it cannot replace a manifest.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Self

from brokers.objects.store import ObjectStore
from brokers.wire import from_wire, new_id
from kubeml.errors import Corrupted, MalformedMessage, ObjectExists, ObjectMissing
from kubeml.weights.layout import Layout, TensorSpec

Buffer = bytes | bytearray | memoryview

#: safetensors' names of the dtypes.
_SAFETENSORS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """An object that holds one blob: its key, the blob's SHA-256 and length."""

    key: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The manifest of one checkpoint.

    Attributes:
        job_id, epoch, version: The job and the epoch whose weights these are, and their number.
        layout: Layout of the tensors.
        weights: The safetensors object of the weights blob (masters).
        frozen: The safetensors object of the frozen blob, which all epochs share; None if nothing
            is frozen.
        outer_state: The outer optimizer's state.
        optimizer: Slot to the inner optimizer's state (policy ``carry``).
    """

    job_id: str
    epoch: int
    version: int
    layout: Layout
    weights: StoredBlob
    frozen: StoredBlob | None
    outer_state: StoredBlob | None
    optimizer: Mapping[int, StoredBlob]

    @property
    def keys(self) -> set[str]:
        """The keys of the objects it refers to."""
        blobs = (self.weights, self.frozen, self.outer_state, *self.optimizer.values())
        return {blob.key for blob in blobs if blob is not None}

    def to_wire(self) -> dict[str, Any]:
        """Return the manifest as JSON-able values."""
        return {
            "job_id": self.job_id,
            "epoch": self.epoch,
            "version": self.version,
            "layout": self.layout.to_wire(),
            "weights": asdict(self.weights),
            "frozen": asdict(self.frozen) if self.frozen else None,
            "outer_state": asdict(self.outer_state) if self.outer_state else None,
            "optimizer": {str(slot): asdict(blob) for slot, blob in self.optimizer.items()},
        }

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a manifest.

        Raises:
            MalformedMessage: It is not a manifest.
        """
        try:
            return cls(
                job_id=wire["job_id"],
                epoch=int(wire["epoch"]),
                version=int(wire["version"]),
                layout=Layout.from_wire(wire["layout"]),
                weights=_blob(wire["weights"]),
                frozen=_blob(wire["frozen"]) if wire["frozen"] else None,
                outer_state=_blob(wire["outer_state"]) if wire["outer_state"] else None,
                optimizer={int(slot): _blob(b) for slot, b in wire["optimizer"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise MalformedMessage(what="checkpoint manifest", fault=str(err)) from err


class Checkpoints:
    """The checkpoints of all jobs."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def key(self, job_id: str, name: int | str) -> str:
        """Return the key of an epoch's manifest; ``stop`` names the weights a stopped job left."""
        text = f"{name:06d}" if isinstance(name, int) else name
        return f"checkpoints/{job_id}/{text}.json"

    def put_weights(self, job_id: str, layout: Layout, blob: Buffer) -> StoredBlob:
        """Store a weights blob as a safetensors object."""
        return self._put_tensors(job_id, "weights", layout.moving, blob, masters=True)

    def put_frozen(self, job_id: str, layout: Layout, blob: Buffer) -> StoredBlob | None:
        """Store the frozen blob; return None if nothing is frozen."""
        if not layout.frozen:
            return None
        return self._put_tensors(job_id, "frozen", layout.frozen, blob, masters=False)

    def put_blob(self, job_id: str, what: str, blob: Buffer) -> StoredBlob:
        """Store bytes as they are (optimizer states)."""
        stored = self._name(job_id, f"{what}.bin", blob)
        self._objects.put(stored.key, blob)
        return stored

    def publish(self, checkpoint: Checkpoint, name: int | str) -> Checkpoint:
        """Write the manifest, and return the one that is there now: the first writer wins."""
        key = self.key(checkpoint.job_id, name)
        try:
            self._objects.put_json(key, checkpoint.to_wire(), create=True)
        except ObjectExists:
            return self.read(key)
        if not self._objects.exists(checkpoint.weights.key):
            # We were paused, the job ended meanwhile, and its unreferenced objects were removed.
            self._objects.delete([key])
        return checkpoint

    def drop_unreferenced(self, job_id: str) -> None:
        """Remove the objects of an ended job that no manifest refers to.

        A parameter server leaves them if it dies after it stored objects and before it wrote the
        manifest. One that is only paused there may still publish. So it looks for its objects after
        publishing, and we look for new manifests after removing.
        """
        unused = self._objects_of(job_id) - self._referenced(job_id)
        if not unused:
            return
        self._objects.delete(unused)
        for key, blobs in self._manifests(job_id).items():
            if blobs & unused:
                self._objects.delete([key])

    def _objects_of(self, job_id: str) -> set[str]:
        return {info.key for info in self._objects.list(f"checkpoints/{job_id}/objects/")}

    def _referenced(self, job_id: str) -> set[str]:
        return set().union(*self._manifests(job_id).values())

    def _manifests(self, job_id: str) -> dict[str, set[str]]:
        """Return the key of each manifest, to the keys of its objects."""
        keys = [
            info.key
            for info in self._objects.list(f"checkpoints/{job_id}/")
            if info.key.endswith(".json")
        ]
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(keys, (c.keys for c in pool.map(self.read, keys)), strict=True))

    def read(self, key: str) -> Checkpoint:
        """Read a manifest.

        Raises:
            ObjectMissing: There is no such manifest.
            MalformedMessage: The manifest is damaged.
        """
        return Checkpoint.from_wire(self._objects.get_json(key))

    def at(self, job_id: str, name: int | str) -> Checkpoint | None:
        """Return the checkpoint of an epoch (or ``stop``); None if there is none."""
        try:
            return self.read(self.key(job_id, name))
        except ObjectMissing:
            return None

    def latest(self, job_id: str) -> Checkpoint | None:
        """Return the checkpoint of the last epoch that has one; None if none has."""
        keys = [
            info.key
            for info in self._objects.list(f"checkpoints/{job_id}/0")
            if info.key.endswith(".json")
        ]
        return self.read(keys[-1]) if keys else None

    def tensors(self, blob: StoredBlob) -> memoryview:
        """Read the blob in a safetensors object, and verify it.

        Raises:
            ObjectMissing: The object is gone.
            Corrupted: Its bytes are not those that were stored.
        """
        data = memoryview(self._objects.get(blob.key))
        header = int.from_bytes(data[:8], "little")
        self._verify(blob, data[8 + header :])
        return data[8 + header :]

    def blob(self, blob: StoredBlob) -> bytes:
        """Read bytes that were stored as they are, and verify them.

        Raises:
            ObjectMissing: The object is gone.
            Corrupted: Its bytes are not those that were stored.
        """
        data = self._objects.get(blob.key)
        self._verify(blob, data)
        return data

    def _put_tensors(
        self,
        job_id: str,
        what: str,
        tensors: tuple[TensorSpec, ...],
        blob: Buffer,
        *,
        masters: bool,
    ) -> StoredBlob:
        stored = self._name(job_id, f"{what}.safetensors", blob)
        header = _safetensors_header(tensors, masters=masters)
        self._objects.put(stored.key, b"".join((header, blob)))
        return stored

    def _name(self, job_id: str, suffix: str, blob: Buffer) -> StoredBlob:
        return StoredBlob(
            key=f"checkpoints/{job_id}/objects/{new_id()}-{suffix}",
            sha256=hashlib.sha256(blob).hexdigest(),
            num_bytes=len(blob),
        )

    def _verify(self, stored: StoredBlob, data: Buffer) -> None:
        digest = hashlib.sha256(data).hexdigest()
        if digest != stored.sha256:
            raise Corrupted(what=stored.key, got=digest, expected=stored.sha256)


def _safetensors_header(tensors: tuple[TensorSpec, ...], *, masters: bool) -> bytes:
    """Return the safetensors header for a blob, whose bytes are the data section unchanged."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        dtype = tensor.master_dtype if masters else tensor.dtype
        length = tensor.master_bytes if masters else tensor.num_bytes
        header[tensor.name] = {
            "dtype": _SAFETENSORS[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + length],
        }
        offset += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blob(wire: Mapping[str, Any]) -> StoredBlob:
    return from_wire(StoredBlob, wire, what="stored blob")
