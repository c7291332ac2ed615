"""The Lua scripts of the round protocol: their texts, and how a client calls them.

The round store decides everything by them.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from brokers.state import exchange
from brokers.state.batch import Batch
from brokers.wire import as_text

if TYPE_CHECKING:
    from redis import Redis


@lru_cache(maxsize=1)
def script_sources() -> dict[str, str]:
    """Return the full text of every script, prelude included, by its name."""
    folder = resources.files("brokers.rounds") / "lua"
    prelude = (folder / "_prelude.lua").read_text("utf-8")
    return {
        file.name.removesuffix(".lua"): prelude + file.read_text("utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".lua") and not file.name.startswith("_")
    }


def registered(client: "Redis", name: str) -> Any:
    """Return the script of this name, to be called through ``client``."""
    scripts = client.__dict__.setdefault("_kubeml_scripts", {})
    if name not in scripts:
        scripts[name] = client.register_script(script_sources()[name])
    return scripts[name]


def command(client: "Redis", name: str, keys: Sequence[str], args: Sequence[object]) -> list[Any]:
    """Return the call of a script as a command for ``run_together`` or ``exchange.Sender``."""
    texts = [arg if isinstance(arg, bytes) else str(arg) for arg in args]
    return ["EVALSHA", registered(client, name).sha, len(keys), *keys, *texts]


def run_together(
    client: "Redis", *commands: Sequence[Any], first: Batch | None = None
) -> list[Any]:
    """Do what ``exchange.exchange`` does, for commands of which some call scripts.

    Args:
        client: The client whose connections to use.
        commands: The commands whose answers are awaited.
        first: Commands to be carried out before them, in the same trip.

    Returns:
        The answers to ``commands``, without those to ``first``.

    Raises:
        redis.exceptions.RedisError: The server does not answer, or refuses a command.
    """
    from redis.exceptions import NoScriptError, ResponseError

    together = [*(first or ()), *commands]
    answers = exchange.exchange(client, together)
    if any(isinstance(answer, NoScriptError) for answer in answers):
        # The server was started anew. All commands are repeated: that is safe, and keeps the order.
        for script in client.__dict__.get("_kubeml_scripts", {}).values():
            client.script_load(script.script)
        answers = exchange.exchange(client, together)
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer
    return answers[len(together) - len(commands) :]


def as_texts(answer: Sequence[Any]) -> list[str]:
    """Return a script's answer, decoded."""
    return [as_text(part) if isinstance(part, bytes) else str(part) for part in answer]
