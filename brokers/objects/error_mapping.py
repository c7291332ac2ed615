"""The one place that maps botocore's errors to kubeml's."""

from collections.abc import Iterator
from contextlib import contextmanager

from brokers.errors import (
    BackendRefused,
    BackendUnreachable,
    BucketMissing,
    ObjectExists,
    ObjectMissing,
    brief,
)


@contextmanager
def s3_errors(where: str, *, bucket: str = "", key: str = "") -> Iterator[None]:
    """Map botocore's errors to kubeml's, naming the endpoint at ``where``, bucket and key."""
    import botocore.exceptions as bexc
    import urllib3.exceptions as uexc

    try:
        yield
    except bexc.ClientError as err:
        code = str(err.response.get("Error", {}).get("Code", ""))
        status = int(err.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            raise BucketMissing(where=where, bucket=bucket) from err
        if code in {"NoSuchKey", "404", "NotFound"} or status == 404:
            raise ObjectMissing(key=key or code) from err
        if code in {"PreconditionFailed", "ConditionalRequestConflict"} or status == 412:
            raise ObjectExists(key=key) from err
        if status >= 500:
            raise BackendUnreachable(backend="s3", where=where, detail=brief(err)) from err
        raise BackendRefused(backend="s3", where=where, detail=brief(err)) from err
    except (bexc.NoCredentialsError, bexc.PartialCredentialsError) as err:
        raise BackendRefused(backend="s3", where=where, detail=brief(err)) from err
    except (bexc.BotoCoreError, uexc.HTTPError) as err:
        raise BackendUnreachable(backend="s3", where=where, detail=brief(err)) from err
