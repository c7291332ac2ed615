"""The catalogue of datasets on S3, under ``datasets/``: create, look up, list, delete."""

import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from brokers.objects.store import ObjectStore
from brokers.shards.manifest import (
    SPLITS,
    DatasetManifest,
    Split,
    dataset_prefix,
    pointer_key,
    version_key,
    version_prefix,
)
from kubeml.catalog.arrays import ArraySource, open_array
from kubeml.catalog.upload import DataWarning, OnProgress, SplitSource, Upload
from kubeml.errors import (
    BackendRefused,
    BackendUnreachable,
    Conflict,
    DatasetNotFound,
    InvalidDataset,
    KubemlError,
    MalformedMessage,
    NameTaken,
    ObjectExists,
    ObjectMissing,
    OutcomeUnknown,
)
from kubeml.validation import NAME, check_name

__all__ = ["DataWarning", "Datasets"]

logger = logging.getLogger(__name__)

_ROOT = "datasets/"
_Manifests = list[DatasetManifest]
Source = Path | str | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Datasets:
    """Datasets by name. A dataset never changes: to change one, delete it and create it again.

    A dataset exists once its pointer ``datasets/{name}/manifest.json`` does. The pointer is written
    last, so an interrupted upload leaves nothing visible.
    """

    objects: ObjectStore

    def create(
        self,
        name: str,
        *,
        train_data: Source,
        train_labels: Source,
        test_data: Source,
        test_labels: Source,
        on_progress: OnProgress | None = None,
    ) -> DatasetManifest:
        """Upload a dataset.

        Args:
            name: Its name, which must be free.
            train_data: Rows on axis 0: an array, or the path of a .npy file, a .npz member
                (``FILE.npz:MEMBER``) or a .pkl file.
            train_labels: As many rows; of shape (n, 1) they are stored as (n,).
            test_data: Rows of the same dtype and shape as those of ``train_data``.
            test_labels: As many rows as ``test_data``, like ``train_labels``.
            on_progress: Called with the bytes done and the bytes in all; the first call has 0.

        Returns:
            The manifest. A ``DataWarning`` tells of NaN or infinite values in the data.

        Raises:
            InvalidOption: The name is not allowed.
            InvalidDataset: The arrays cannot be used. Nothing was written.
            NameTaken: There is a dataset of this name.
            BackendUnreachable, BackendRefused: S3 failed. The shards that were put are deleted if
                they can be.
            OutcomeUnknown: S3 failed as the dataset was published. It may exist, so nothing is
                deleted.
        """
        check_name("--name", name)
        sources: dict[Split, SplitSource] = {
            "train": _open_split("train", train_data, train_labels),
            "test": _open_split("test", test_data, test_labels),
        }
        _require_alike(sources["train"], sources["test"])
        self.objects.ensure_bucket()
        if self.objects.exists(pointer_key(name)):
            raise _name_taken(name)
        version = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        try:
            manifest = self._upload(name, version, sources, on_progress)
        except BaseException:
            # This is for Ctrl-C too. If S3 failed, the next create or delete of the name cleans up.
            self._take_away(name, version)
            raise
        self._publish(manifest)
        self._drop_leftovers(name, keep=version)
        return manifest

    def show(self, name: str) -> DatasetManifest:
        """Return the manifest of the dataset of this name.

        Raises:
            DatasetNotFound: There is no such dataset.
        """
        return self._read(name, pointer_key(name))

    def at(self, name: str, version: str) -> DatasetManifest:
        """Return the manifest of one version, as the jobs that began with it see it.

        Raises:
            DatasetNotFound: There is no such version (any more).
        """
        if not NAME.fullmatch(version):
            raise DatasetNotFound(name=f"{name}/{version}")
        return self._read(name, version_key(name, version))

    def delete(self, name: str) -> None:
        """Delete a dataset, and whatever interrupted uploads of this name left behind.

        Jobs that train on it fail when they next need a shard that they have not cached.

        Raises:
            DatasetNotFound: There is no such dataset. Leftovers are removed all the same.
        """
        if not NAME.fullmatch(name):
            raise DatasetNotFound(name=name)
        pointer = pointer_key(name)
        # The keys are listed while the name is still taken, so that an upload that begins once it
        # is free is not hit.
        keys = [info.key for info in self.objects.list(dataset_prefix(name))]
        self.objects.delete([pointer])
        self.objects.delete(key for key in keys if key != pointer)
        if pointer not in keys:
            raise DatasetNotFound(name=name)

    def list(self) -> _Manifests:
        """Return the manifests of all datasets, by name."""
        manifests = []
        for name in sorted(self.objects.list_names(_ROOT)):
            try:
                manifests.append(self.show(name))
            except DatasetNotFound:
                continue  # an upload under way, or what is left of one
            except MalformedMessage as err:
                logger.warning(
                    "dataset %s is skipped: %s", name, err, extra={"event": "bad_manifest"}
                )
        return manifests

    def _read(self, name: str, key: str) -> DatasetManifest:
        if not NAME.fullmatch(name):
            raise DatasetNotFound(name=name)
        try:
            manifest = DatasetManifest.from_wire(self.objects.get_json(key))
        except ObjectMissing as err:
            raise DatasetNotFound(name=name) from err
        if manifest.name != name:
            raise MalformedMessage(what="dataset manifest", fault=f"{key} is of {manifest.name!r}")
        return manifest

    def _upload(
        self,
        name: str,
        version: str,
        sources: Mapping[Split, SplitSource],
        on_progress: OnProgress | None,
    ) -> DatasetManifest:
        upload = Upload(
            name=name,
            version=version,
            objects=self.objects,
            sources=sources,
            on_progress=on_progress,
        )
        parts = upload.run()
        manifest = DatasetManifest(
            name=name,
            version=version,
            created_at=time.time(),
            train=parts["train"],
            test=parts["test"],
        )
        self._require_complete(manifest)
        self.objects.put_json(version_key(name, version), manifest.to_wire())
        return manifest

    def _publish(self, manifest: DatasetManifest) -> None:
        """Write the pointer. After that, shards are deleted only if another upload has the name."""
        name, key = manifest.name, pointer_key(manifest.name)
        try:
            # No other upload has this version, so the pointer's content is ours alone.
            self.objects.put_json(key, manifest.to_wire(), create=True, is_unique=True)
        except ObjectExists:
            is_taken = True
        else:
            # Some servers let two concurrent creators both succeed: the pointer says which one won.
            is_taken = self._published(name).version != manifest.version
        if is_taken:
            self._take_away(name, manifest.version)
            raise _name_taken(name)

    def _published(self, name: str) -> DatasetManifest:
        try:
            return self.show(name)
        except (BackendUnreachable, BackendRefused) as err:
            raise OutcomeUnknown(
                where=self.objects.where, key=pointer_key(name), detail=str(err)
            ) from err

    def _take_away(self, name: str, version: str) -> None:
        with suppress(KubemlError):
            self.objects.delete_prefix(version_prefix(name, version))

    def _require_complete(self, manifest: DatasetManifest) -> None:
        """Refuse to publish if a concurrent delete of the name has taken shards away."""
        prefix = version_prefix(manifest.name, manifest.version)
        there = {info.key: info.size for info in self.objects.list(prefix)}
        for split in SPLITS:
            for shard in manifest.split(split).shards:
                if there.get(shard.key) != shard.num_bytes:
                    raise Conflict(
                        what=f"dataset {manifest.name!r} was deleted while it was uploaded",
                        hint="create it again",
                    )

    def _drop_leftovers(self, name: str, *, keep: str) -> None:
        """Remove what interrupted uploads left; one still under way can only lose the name."""
        kept = (pointer_key(name), version_prefix(name, keep))
        keys = [info.key for info in self.objects.list(dataset_prefix(name))]
        self.objects.delete(key for key in keys if not key.startswith(kept))


def _open_split(split: Split, data: Source, labels: Source) -> SplitSource:
    opened = SplitSource(
        data=open_array(data, what=f"{split} data"),
        labels=open_array(labels, what=f"{split} labels").as_labels(),
    )
    if opened.data.num_rows != opened.labels.num_rows:
        raise InvalidDataset(
            where=opened.labels.where,
            fault=f"has {opened.labels.num_rows} rows, expected {opened.data.num_rows}"
            f" as in {opened.data.where}",
            hint="give one label for each row of data",
        )
    return opened


def _require_alike(train: SplitSource, test: SplitSource) -> None:
    for ours, theirs in ((test.data, train.data), (test.labels, train.labels)):
        if (ours.dtype, ours.row_shape) != (theirs.dtype, theirs.row_shape):
            raise InvalidDataset(
                where=ours.where,
                fault=f"has rows of {_rows(ours)}, expected {_rows(theirs)} as in {theirs.where}",
                hint="prepare training and test arrays in the same way",
            )


def _rows(source: ArraySource) -> str:
    return f"{source.dtype} {source.row_shape}" if source.row_shape else f"one {source.dtype}"


def _name_taken(name: str) -> NameTaken:
    hint = f"choose another name, or first run `kubeml dataset delete {name}`"
    return NameTaken(kind="dataset", name=name, hint=hint)
