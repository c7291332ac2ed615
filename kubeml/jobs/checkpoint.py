"""Checkpoints in S3: safetensors objects of unique names, and one small manifest per epoch.

    checkpoints/{job}/{epoch:06d}.json     manifest; create-only, epoch 0 is the initial weights
    checkpoints/{job}/objects/{uuid}-*     what it points to

A parameter server that was thought dead may still write objects; it cannot replace a manifest.
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
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """An object that holds one blob: its key, the blob's SHA-256 and length."""

    key: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Manifest of one checkpoint.

    Attributes:
        job_id, epoch, version: Which weights these are.
        layout: Layout of the tensors.
        weights: safetensors object of the weights blob (masters).
        frozen: safetensors object of the frozen blob; shared by all epochs; None if none.
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
        """Keys of the objects it refers to."""
        blobs = (self.weights, self.frozen, self.outer_state, *self.optimizer.values())
        return {blob.key for blob in blobs if blob is not None}

    def to_wire(self) -> dict[str, Any]:
        """The manifest as JSON-able values."""
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
            MalformedMessage: It is not one.
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
        """Key of a manifest: an epoch's, or ``stop`` for the weights a stopped job ended with."""
        text = f"{name:06d}" if isinstance(name, int) else name
        return f"checkpoints/{job_id}/{text}.json"

    def put_weights(self, job_id: str, layout: Layout, blob: Buffer) -> StoredBlob:
        """Store a weights blob as a safetensors object."""
        return self._put_tensors(job_id, "weights", layout.moving, blob, masters=True)

    def put_frozen(self, job_id: str, layout: Layout, blob: Buffer) -> StoredBlob | None:
        """Store the frozen blob; None if nothing is frozen."""
        if not layout.frozen:
            return None
        return self._put_tensors(job_id, "frozen", layout.frozen, blob, masters=False)

    def put_blob(self, job_id: str, what: str, blob: Buffer) -> StoredBlob:
        """Store bytes as they are (optimizer states)."""
        stored = self._name(job_id, f"{what}.bin", blob)
        self._objects.put(stored.key, blob)
        return stored

    def publish(self, checkpoint: Checkpoint, name: int | str) -> Checkpoint:
        """Write the manifest, and return the one that stands there now (the first one wins)."""
        key = self.key(checkpoint.job_id, name)
        try:
            self._objects.put_json(key, checkpoint.to_wire(), create=True)
        except ObjectExists:
            return self.read(key)
        if not self._objects.exists(checkpoint.weights.key):
            # We slept, the job ended meanwhile, and what nobody referred to was removed.
            self._objects.delete([key])
        return checkpoint

    def drop_unreferenced(self, job_id: str) -> None:
        """Remove the objects of an ended job that no manifest refers to.

        A parameter server that died between the two left them. One that is only paused there may
        publish yet: it looks for its objects after that, and we look for new manifests after this.
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
        """Key of each manifest to the keys of its objects."""
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
            ObjectMissing: There is none.
            MalformedMessage: It is damaged.
        """
        return Checkpoint.from_wire(self._objects.get_json(key))

    def at(self, job_id: str, name: int | str) -> Checkpoint | None:
        """The checkpoint of an epoch (or ``stop``), if there is one."""
        try:
            return self.read(self.key(job_id, name))
        except ObjectMissing:
            return None

    def latest(self, job_id: str) -> Checkpoint | None:
        """The checkpoint of the last epoch that has one."""
        keys = [
            info.key
            for info in self._objects.list(f"checkpoints/{job_id}/0")
            if info.key.endswith(".json")
        ]
        return self.read(keys[-1]) if keys else None

    def tensors(self, blob: StoredBlob) -> memoryview:
        """Read the blob out of a safetensors object, verified.

        Raises:
            ObjectMissing: The object is gone.
            Corrupted: Its bytes are not those that were stored.
        """
        data = memoryview(self._objects.get(blob.key))
        header = int.from_bytes(data[:8], "little")
        self._verify(blob, data[8 + header :])
        return data[8 + header :]

    def blob(self, blob: StoredBlob) -> bytes:
        """Read bytes stored as they are, verified.

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
    """The safetensors header of a blob: its bytes are the data section as they stand."""
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
