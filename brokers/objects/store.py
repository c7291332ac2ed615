"""The S3 bucket: it takes and gives whole objects, and every error has a name."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from brokers.errors import (
    BackendRefused,
    BackendUnreachable,
    BucketMissing,
    Corrupted,
    InvalidSetting,
    KubemlError,
    ObjectExists,
    ObjectMissing,
    OutcomeUnknown,
)
from brokers.objects.error_mapping import s3_errors
from brokers.settings import Settings
from brokers.urls import mask_url

_DELETE_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One row of a listing: an object's key, and its size in bytes."""

    key: str
    size: int


class ObjectStore:
    """The kubeml bucket. Safe to share between threads; make a new one after a fork."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = settings.s3_bucket
        self.where = mask_url(settings.s3_endpoint_url) or "the AWS endpoint"
        self._client = _make_client(settings)

    @property
    def client(self) -> Any:
        """The boto3 client underneath, for multi-part transfers."""
        return self._client

    def ensure_bucket(self) -> None:
        """Create the bucket unless it exists."""
        with self._errors():
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except self._client.exceptions.ClientError as err:
                if err.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                    raise
                self._client.create_bucket(Bucket=self.bucket)

    def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Write an object, and replace one that exists."""
        with self._errors(key):
            self._client.put_object(
                Bucket=self.bucket, Key=key, Body=data if isinstance(data, bytes) else bytes(data)
            )

    def create(self, key: str, data: bytes, *, is_unique: bool = False) -> None:
        """Write an object that must not exist yet.

        boto3 repeats a request whose reply was lost. It is then told that the object exists, which
        is the one that the first request wrote.

        Args:
            key: Its key.
            data: Its content.
            is_unique: Whether no other writer can have this very content. Then an object that
                exists is read back, and counts as written if its content is ``data``. It must be
                False for a claim that two writers may make in the same words: both would win.

        Raises:
            ObjectExists: The object exists. (Some servers let concurrent creators both win; where
                that matters, Redis decides.)
            OutcomeUnknown: With ``is_unique``: it may have been written, and cannot be read back.
        """
        try:
            with self._errors(key):
                self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
        except (ObjectExists, BackendUnreachable) as err:
            if not is_unique:
                raise
            self._require_content(key, data, err)

    def _require_content(self, key: str, data: bytes, err: KubemlError) -> None:
        """Check that an object was written although its creation ended with ``err``."""
        try:
            there = self.get(key)
        except KubemlError as again:
            # That it is missing is no answer either: a request that was cut off may still arrive.
            raise OutcomeUnknown(where=self.where, key=key, detail=str(err)) from again
        if there != data:
            raise ObjectExists(key=key) from err

    def get(self, key: str) -> bytes:
        """Read a whole object.

        Raises:
            ObjectMissing: There is none.
            Corrupted: The body is shorter than its declared length.
        """
        with self._errors(key):
            response = self._client.get_object(Bucket=self.bucket, Key=key)
            body = response["Body"].read()
        if len(body) != response["ContentLength"]:
            raise Corrupted(
                what=key, got=f"{len(body)} bytes", expected=f"{response['ContentLength']} bytes"
            )
        return bytes(body)

    def put_json(
        self, key: str, value: Any, *, create: bool = False, is_unique: bool = False
    ) -> None:
        """Write a JSON document; with ``create``, as the method ``create`` does."""
        data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        if create:
            self.create(key, data, is_unique=is_unique)
        else:
            self.put(key, data)

    def get_json(self, key: str) -> Any:
        """Read a JSON document.

        Raises:
            ObjectMissing: There is none.
            Corrupted: It is not JSON.
        """
        data = self.get(key)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as err:
            raise Corrupted(what=key, got=f"{data[:40]!r}", expected="a JSON document") from err

    def exists(self, key: str) -> bool:
        """Return whether there is an object under ``key``."""
        try:
            with self._errors(key):
                self._client.head_object(Bucket=self.bucket, Key=key)
        except ObjectMissing:
            return False
        return True

    def has_bucket(self) -> bool:
        """Return whether the bucket exists, which is the cheapest question to S3."""
        try:
            with self._errors():
                self._client.head_bucket(Bucket=self.bucket)
        except ObjectMissing:
            return False
        return True

    def require_bucket(self) -> None:
        """Refuse to go on without the bucket: some servers would create it on the first PUT.

        Raises:
            BucketMissing: The bucket does not exist.
        """
        if not self.has_bucket():
            raise BucketMissing(where=self.where, bucket=self.bucket)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object under ``prefix``, in key order."""
        for page in self._pages(prefix):
            for row in page.get("Contents", []):
                yield ObjectInfo(key=row["Key"], size=row["Size"])

    def list_names(self, prefix: str) -> Iterator[str]:
        """Yield the names of the "directories" directly under ``prefix`` (ending in ``/``)."""
        for page in self._pages(prefix, delimiter="/"):
            for row in page.get("CommonPrefixes", []):
                yield row["Prefix"][len(prefix) :].rstrip("/")

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; keys without an object do no harm."""
        batch: list[str] = []
        for key in keys:
            batch.append(key)
            if len(batch) == _DELETE_BATCH:
                self._delete_batch(batch)
                batch = []
        if batch:
            self._delete_batch(batch)

    def delete_prefix(self, prefix: str) -> None:
        """Delete every object under ``prefix``."""
        self.delete([info.key for info in self.list(prefix)])

    def _errors(self, key: str = "") -> AbstractContextManager[None]:
        return s3_errors(self.where, bucket=self.bucket, key=key)

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._errors():
            answer = self._client.delete_objects(
                Bucket=self.bucket,
                Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
            )
        # The answer is 200 even if every single key was refused.
        for fault in answer.get("Errors", []):
            raise BackendRefused(
                backend="s3",
                where=self.where,
                detail=f"deleting {fault.get('Key')}: {fault.get('Code')} {fault.get('Message')}",
            )

    def _pages(self, prefix: str, *, delimiter: str = "") -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            with self._errors(prefix):
                page = self._client.list_objects_v2(
                    Bucket=self.bucket,
                    Prefix=prefix,
                    **({"Delimiter": delimiter} if delimiter else {}),
                    **token,
                )
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}


def _make_client(settings: Settings) -> Any:
    # Imported here: boto3 costs 0.3 s, which `kubeml --help` must not pay.
    import boto3
    from botocore.config import Config

    from brokers.objects.clock import ClockCorrection

    config = Config(
        connect_timeout=3,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        # We check integrity ourselves (sha256 in manifests); trailers confuse some S3 servers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    session = boto3.session.Session()
    try:
        client = session.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url or None,
            region_name=session.region_name or "us-east-1",
            aws_access_key_id=settings.s3_access_key or None,
            aws_secret_access_key=settings.s3_secret_key or None,
            config=config,
        )
    except ValueError as err:
        # For example a host with an underscore, which botocore does not accept.
        raise InvalidSetting(setting="s3_endpoint_url", fault=_endpoint_fault(settings)) from err
    ClockCorrection().attach(client)
    return client


def _endpoint_fault(settings: Settings) -> str:
    return f"S3's client refuses {mask_url(settings.s3_endpoint_url)!r}: is its host a valid name?"
