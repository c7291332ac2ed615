"""Signs S3 requests by the server's clock, learned from its answers, when ours is wrong.

A request is signed with the time, and S3 refuses a time that is more than 15 minutes off. A worker
whose clock is off by an hour is to train all the same.
"""

import logging
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, S3SigV4Auth

logger = logging.getLogger(__name__)

_OFFSET = "kubeml_clock_offset"

#: A refusal is put down to our clock only if that is off by more than this.
_SUSPICIOUS = timedelta(minutes=4)


class ClockCorrection:
    """What one S3 client knows of its server's clock."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    def attach(self, client: Any) -> None:
        """Let ``client``, a boto3 client of S3, sign by this clock."""
        AUTH_TYPE_MAPS["s3v4"] = _CorrectedAuth
        client.meta.events.register("before-sign.s3", self._pass_on)
        client.meta.events.register_first("needs-retry.s3", self._learn)

    def _pass_on(self, request: Any, **_: Any) -> None:
        request.context[_OFFSET] = self._offset

    def _learn(self, response: Any, attempts: int, **_: Any) -> float | None:
        """Note the clock of a server that refused us; a number lets botocore try again."""
        if response is None or response[0].status_code != 403 or attempts > 2:
            return None
        try:
            theirs = parsedate_to_datetime(response[0].headers["Date"])
        except (KeyError, TypeError, ValueError):
            return None
        offset = theirs.astimezone(UTC) - datetime.now(UTC)
        if abs(offset - self._offset) < _SUSPICIOUS:
            return None
        logger.warning("this clock is %s off the S3 server's: signing by the server's", -offset)
        self._offset = offset
        return 0.0


class _CorrectedAuth(S3SigV4Auth):
    """Botocore's own signing, for the requests of any client; only ours have an offset."""

    def _modify_request_before_signing(self, request: Any) -> None:
        if offset := request.context.get(_OFFSET):
            corrected = datetime.now(UTC) + offset
            request.context["timestamp"] = corrected.strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)  # type: ignore[no-untyped-call]
