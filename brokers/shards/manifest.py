"""What a dataset is made of, as stored beside its shards; read strictly, since jobs rely on it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Literal, Self

from brokers.errors import MalformedMessage
from brokers.shards.format import SHARD_DTYPES, row_bytes

#: The two parts of every dataset.
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

MAX_SHARDS = 100_000
MAX_ROWS = 2**40
MAX_SHARD_BYTES = 2**32
MAX_AXES = 16
_KEY = re.compile(r"[\x21-\x7e]{1,1024}")
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """One shard.

    Attributes:
        key: Its S3 key.
        num_rows: Rows it holds, > 0.
        num_bytes: Size of the file.
        sha256: Of the file, lower-case hex.
    """

    key: str
    num_rows: int
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _require_text("key", self.key, pattern=_KEY)
        _require_int("num_rows", self.num_rows, high=MAX_ROWS)
        _require_int("num_bytes", self.num_bytes, high=MAX_SHARD_BYTES)
        _require_text("sha256", self.sha256, pattern=_SHA256)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitInfo:
    """The training or the test part.

    Attributes:
        num_rows: Rows of all shards together.
        data_dtype, labels_dtype: numpy's names, keys of ``SHARD_DTYPES``.
        data_shape, labels_shape: Of one row; ``()`` for scalars.
        shards: In row order.
    """

    num_rows: int
    data_dtype: str
    data_shape: tuple[int, ...]
    labels_dtype: str
    labels_shape: tuple[int, ...]
    shards: tuple[ShardInfo, ...]

    def __post_init__(self) -> None:
        _require_int("num_rows", self.num_rows, high=MAX_ROWS)
        for dtype in (self.data_dtype, self.labels_dtype):
            _require(dtype in SHARD_DTYPES, "dtype", dtype)
        for shape in (self.data_shape, self.labels_shape):
            _require(len(shape) <= MAX_AXES, "shape", shape)
            for length in shape:
                _require_int("shape", length, high=MAX_ROWS)
        _require(0 < len(self.shards) <= MAX_SHARDS, "number of shards", len(self.shards))
        total = sum(shard.num_rows for shard in self.shards)
        _require(total == self.num_rows, "num_rows", f"{self.num_rows}, the shards' sum {total}")
        for shard in self.shards:
            least = shard.num_rows * self.row_bytes
            _require(shard.num_bytes > least, f"num_bytes of {shard.key}", shard.num_bytes)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of data and labels."""
        return row_bytes(self.data_dtype, self.data_shape) + row_bytes(
            self.labels_dtype, self.labels_shape
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def shard_rows(self) -> tuple[int, ...]:
        """Rows of each shard, in order."""
        return tuple(shard.num_rows for shard in self.shards)

    @property
    def first_rows(self) -> tuple[int, ...]:
        """Index of each shard's first row, in order."""
        return tuple(accumulate(self.shard_rows[:-1], initial=0))

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read one part of a manifest; the caller turns TypeErrors into MalformedMessage."""
        _require(isinstance(wire, Mapping), "split", wire)
        shards = wire.get("shards", ())
        _require(isinstance(shards, list) and len(shards) <= MAX_SHARDS, "shards", "no list")
        return cls(
            **{
                **wire,
                "data_shape": tuple(wire.get("data_shape", ())),
                "labels_shape": tuple(wire.get("labels_shape", ())),
                "shards": tuple(ShardInfo(**shard) for shard in shards),
            }
        )


@dataclass(frozen=True, kw_only=True)
class DatasetManifest:
    """One version of a dataset; never changed once written.

    Attributes:
        name: The dataset's name.
        version: Unique for ever; another upload under the same name gets another one.
        created_at: Unix seconds, the client's clock; for people only.
        train, test: Its two parts; rows of both have the same dtypes and shapes.
    """

    name: str
    version: str
    created_at: float
    train: SplitInfo
    test: SplitInfo

    def __post_init__(self) -> None:
        _require_text("name", self.name, pattern=_NAME)
        _require_text("version", self.version, pattern=_NAME)
        _require(type(self.created_at) in {int, float}, "created_at", self.created_at)
        prefix = version_prefix(self.name, self.version)
        for shard in (*self.train.shards, *self.test.shards):
            # Whatever is written here, a worker reads no object of another dataset or job.
            _require(shard.key.startswith(prefix), "key", shard.key)

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards of both parts."""
        return self.train.num_bytes + self.test.num_bytes

    def split(self, split: Split) -> SplitInfo:
        """The part of this name."""
        return self.train if split == "train" else self.test

    def to_wire(self) -> dict[str, Any]:
        """The manifest as JSON-able values."""
        wire = asdict(self)
        for split in SPLITS:
            part = wire[split]
            part["data_shape"] = list(part["data_shape"])
            part["labels_shape"] = list(part["labels_shape"])
            part["shards"] = list(part["shards"])
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read a manifest; refuse missing, unknown and impossible fields alike.

        Raises:
            MalformedMessage: It is not a dataset manifest.
        """
        _require(isinstance(wire, Mapping), "document", wire)
        try:
            train, test = (SplitInfo.from_wire(wire[split]) for split in SPLITS)
            return cls(**{**wire, "train": train, "test": test})
        except (TypeError, KeyError) as err:
            fault = f"{type(err).__name__}: {err}"
            raise MalformedMessage(what="dataset manifest", fault=fault) from err


def dataset_prefix(name: str) -> str:
    """S3 prefix of everything of a dataset, leftovers included."""
    return f"datasets/{name}/"


def version_prefix(name: str, version: str) -> str:
    """S3 prefix of one version of a dataset."""
    return f"{dataset_prefix(name)}{version}/"


def pointer_key(name: str) -> str:
    """S3 key of the manifest that makes a dataset visible."""
    return f"{dataset_prefix(name)}manifest.json"


def version_key(name: str, version: str) -> str:
    """S3 key of the manifest of one version, which jobs hold on to."""
    return f"{version_prefix(name, version)}manifest.json"


def shard_key(name: str, version: str, split: Split, index: int) -> str:
    """S3 key of a shard."""
    return f"{version_prefix(name, version)}{split}-{index:05d}.safetensors"


def _require_int(field: str, value: object, *, high: int) -> None:
    holds = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= high
    _require(holds, field, value)


def _require_text(field: str, value: object, *, pattern: re.Pattern[str]) -> None:
    _require(isinstance(value, str) and pattern.fullmatch(value) is not None, field, value)


def _require(holds: bool, field: str, value: object) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise MalformedMessage(what="dataset manifest", fault=f"{field} is {str(value)[:80]!r}")
