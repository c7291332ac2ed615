"""The ledger of one epoch, as it stands in the round store's hash ``g``."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from brokers.texts import as_text


class Ledger(NamedTuple):
    """What an epoch merged so far. The values are JSON texts.

    Attributes:
        merged: Round to its contributions, without their tensors.
        failed: The attempts that came to nothing, in order.
        timings: Round to ``[opened, merged, [[begun, taken, in], ...]]``; see ``advance.lua``. A
            round that was merged by scripts which did not note them has none.
    """

    merged: dict[int, str]
    failed: list[str]
    timings: dict[int, str]

    @classmethod
    def from_hash(cls, raw: Mapping[bytes, bytes]) -> Self:
        """Sort the fields of the hash: ``N``, ``tN`` and ``fN``, each N a whole number."""
        of_kind: dict[str, dict[int, str]] = {"": {}, "f": {}, "t": {}}
        for key, text in raw.items():
            name = as_text(key)
            number = name.lstrip("ft")
            of_kind[name.removesuffix(number)][int(number)] = as_text(text)
        failed = [text for _, text in sorted(of_kind["f"].items())]
        return cls(merged=of_kind[""], failed=failed, timings=of_kind["t"])

    def failed_attempts(self) -> list[dict[str, Any]]:
        """What is noted of each failed attempt; one that nobody can read is left out.

        Notes are for people: they must not keep an epoch from being recorded.
        """
        return [attempt for text in self.failed if (attempt := _attempt(text))]


def _attempt(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
