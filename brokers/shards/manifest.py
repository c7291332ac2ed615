"""The manifest of a dataset, stored beside its shards: what the dataset is made of.

It is read strictly, since jobs rely on it.
"""

from itertools import accumulate
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta, Struct

from brokers.errors import MalformedMessage
from brokers.shards.format import SHARD_DTYPES, row_bytes
from brokers.wire import from_wire

#: The two parts of every dataset.
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

MAX_SHARDS = 100_000
MAX_ROWS = 2**40
MAX_SHARD_BYTES = 2**32
MAX_AXES = 16

Rows = Annotated[int, Meta(ge=1, le=MAX_ROWS)]
Shape = Annotated[tuple[Rows, ...], Meta(max_length=MAX_AXES)]
Key = Annotated[str, Meta(pattern=r"\A[\x21-\x7e]{1,1024}\Z")]
Name = Annotated[str, Meta(pattern=r"\A(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class ShardInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shard.

    Attributes:
        key: Its S3 key.
        num_rows: Rows it holds, > 0.
        num_bytes: Size of the file.
        sha256: Hash of the file, in lower-case hex.
    """

    key: Key
    num_rows: Rows
    num_bytes: Annotated[int, Meta(ge=1, le=MAX_SHARD_BYTES)]
    sha256: Sha256


class SplitInfo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The training or the test part.

    Attributes:
        num_rows: Rows of all shards together.
        data_dtype, labels_dtype: numpy's names, keys of ``SHARD_DTYPES``.
        data_shape, labels_shape: The shape of one row; ``()`` for scalars.
        shards: The shards, in row order.
    """

    num_rows: Rows
    data_dtype: str
    data_shape: Shape
    labels_dtype: str
    labels_shape: Shape
    shards: Annotated[tuple[ShardInfo, ...], Meta(min_length=1, max_length=MAX_SHARDS)]

    def __post_init__(self) -> None:
        for dtype in (self.data_dtype, self.labels_dtype):
            _require(dtype in SHARD_DTYPES, "dtype", dtype)
        total = sum(shard.num_rows for shard in self.shards)
        _require(total == self.num_rows, "num_rows", f"{self.num_rows}, the shards' sum {total}")
        for shard in self.shards:
            least = shard.num_rows * self.row_bytes
            _require(shard.num_bytes > least, f"num_bytes of {shard.key}", shard.num_bytes)

    @property
    def row_bytes(self) -> int:
        """Number of bytes of one row of data and labels."""
        return row_bytes(self.data_dtype, self.data_shape) + row_bytes(
            self.labels_dtype, self.labels_shape
        )

    @property
    def num_bytes(self) -> int:
        """Number of bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def shard_rows(self) -> tuple[int, ...]:
        """Number of rows of each shard, in order."""
        return tuple(shard.num_rows for shard in self.shards)

    @property
    def first_rows(self) -> tuple[int, ...]:
        """Index of each shard's first row, in order."""
        return tuple(accumulate(self.shard_rows[:-1], initial=0))


class DatasetManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a dataset; never changed once written.

    Attributes:
        name: The dataset's name.
        version: Unique for ever: another upload under the same name gets another version.
        created_at: Unix seconds by the client's clock; for people only.
        train, test: Its two parts. The rows of both have the same dtypes and shapes.
    """

    name: Name
    version: Name
    created_at: float
    train: SplitInfo
    test: SplitInfo

    def __post_init__(self) -> None:
        prefix = version_prefix(self.name, self.version)
        for shard in (*self.train.shards, *self.test.shards):
            # Whatever a manifest says, a worker must read no object of another dataset or job.
            _require(shard.key.startswith(prefix), "key", shard.key)

    @property
    def num_bytes(self) -> int:
        """Number of bytes of all shards of both parts."""
        return self.train.num_bytes + self.test.num_bytes

    def split(self, split: Split) -> SplitInfo:
        """Return the part of this name."""
        return self.train if split == "train" else self.test

    def to_wire(self) -> dict[str, Any]:
        """Return the manifest as JSON-able values."""
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """Read a manifest.

        Raises:
            MalformedMessage: It is not one; a field may be missing, unknown or impossible.
        """
        return from_wire(cls, wire, what="dataset manifest")


def dataset_prefix(name: str) -> str:
    """Return the S3 prefix of everything of a dataset, leftovers included."""
    return f"datasets/{name}/"


def version_prefix(name: str, version: str) -> str:
    """Return the S3 prefix of one version of a dataset."""
    return f"{dataset_prefix(name)}{version}/"


def pointer_key(name: str) -> str:
    """Return the S3 key of the manifest that makes a dataset visible."""
    return f"{dataset_prefix(name)}manifest.json"


def version_key(name: str, version: str) -> str:
    """Return the S3 key of the manifest of one version, which jobs hold on to."""
    return f"{version_prefix(name, version)}manifest.json"


def shard_key(name: str, version: str, split: Split, index: int) -> str:
    """Return the S3 key of a shard."""
    return f"{version_prefix(name, version)}{split}-{index:05d}.safetensors"


def _require(holds: bool, field: str, value: object) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise MalformedMessage(what="dataset manifest", fault=f"{field} is {str(value)[:80]!r}")
