"""The ledger of one epoch, as it stands in the round store's hash ``g``."""

from collections.abc import Mapping
from typing import NamedTuple, Self


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
            name = key.decode()
            number = name.lstrip("ft")
            of_kind[name.removesuffix(number)][int(number)] = text.decode()
        failed = [text for _, text in sorted(of_kind["f"].items())]
        return cls(merged=of_kind[""], failed=failed, timings=of_kind["t"])
