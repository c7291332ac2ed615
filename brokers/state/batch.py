"""Commands that wait for the next trip to the state server.

A trip costs more than most commands do. So a command whose answer is not needed (to write an event,
say, or to drop old chunks) is put into a batch. The batch is carried out right before a question
that has to be asked anyway; see ``brokers.state.scripts.run_together``.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Self


class Batch:
    """Commands to be carried out in order, in the trip of another command, before that.

    Only ``brokers`` looks inside. Code that is handed a batch hands it on, or adds it to its own.
    Every command must be safe to repeat: a batch is sent again when its connection breaks.
    """

    __slots__ = ("_commands",)

    def __init__(self) -> None:
        self._commands: list[Sequence[Any]] = []

    def add(self, *command: Any) -> Self:
        """Add a command: its name, then its arguments."""
        self._commands.append(command)
        return self

    def extend(self, other: "Batch") -> Self:
        """Add the commands of another batch, which keeps them."""
        self._commands.extend(other)
        return self

    def take(self) -> "Batch":
        """Return a batch of all commands and empty this one, so that they are sent once."""
        taken = Batch().extend(self)
        self._commands = []
        return taken

    def __len__(self) -> int:
        return len(self._commands)

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self._commands)
