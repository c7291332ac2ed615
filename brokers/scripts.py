"""The Lua scripts of the round protocol: their texts, and how a client calls them."""

from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis


@lru_cache(maxsize=1)
def script_sources() -> dict[str, str]:
    """Name to full text of every script, its prelude included."""
    folder = resources.files("brokers") / "lua"
    prelude = (folder / "_prelude.lua").read_text("utf-8")
    return {
        file.name.removesuffix(".lua"): prelude + file.read_text("utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".lua") and not file.name.startswith("_")
    }


def registered(client: "Redis", name: str) -> Any:
    """The script of this name, to be called through ``client``."""
    scripts = client.__dict__.setdefault("_kubeml_scripts", {})
    if name not in scripts:
        scripts[name] = client.register_script(script_sources()[name])
    return scripts[name]
