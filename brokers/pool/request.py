"""One inference request, as its row in the table of requests has it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One inference request.

    Attributes:
        device: The device that its worker must have.
        until: When the client that asked gives up, in the state server's Unix seconds.
        worker: The worker that has it in hand; "" while it waits.
    """

    device: str
    until: float
    worker: str = ""


def awaited_among(rows: Mapping[bytes, bytes], now: float) -> list[Request]:
    """Return the rows that are still waited for; ``now`` is in the server's Unix seconds."""
    return [request for text in rows.values() if (request := if_awaited(text, now))]


def if_awaited(text: bytes, now: float) -> Request | None:
    """Read a row if it is still waited for, else None; ``now`` is in the server's Unix seconds."""
    request = read_request(text)
    return request if request is not None and now < request.until else None


def read_request(text: bytes) -> Request | None:
    """Read a row of the table, without what a newer version added; None if it is unreadable."""
    try:
        row = json.loads(text)
        return Request(
            device=str(row["device"]), until=float(row["until"]), worker=str(row["worker"])
        )
    except (TypeError, ValueError, KeyError):
        return None
