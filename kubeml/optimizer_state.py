"""An optimizer's state as bytes: safetensors plus its structure as JSON; bit-exact, no pickle."""

import json
from typing import Any

import torch
from safetensors.torch import load, save

from kubeml.errors import MalformedMessage, UserCodeError


def encode(optimizer: torch.optim.Optimizer) -> bytes:
    """Return the optimizer's state (momentum and the like, not its hyper-parameters).

    Raises:
        UserCodeError: The state holds something that is neither a tensor nor a plain value.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = _flatten(optimizer.state_dict()["state"], tensors, "state")
    return save(tensors, metadata={"structure": json.dumps(structure)})


def decode(optimizer: torch.optim.Optimizer, blob: bytes) -> None:
    """Put encoded state into an optimizer of the same parameters.

    Raises:
        MalformedMessage: The bytes are not an encoded state.
    """
    try:
        tensors = load(blob)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        structure = json.loads(header["__metadata__"]["structure"])
        state = _unflatten(structure, tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as err:
        raise MalformedMessage(what="optimizer state", fault=str(err)) from err
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _flatten(value: Any, tensors: dict[str, torch.Tensor], path: str) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # A copy: safetensors refuses tensors that share storage.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"t": name}
    if isinstance(value, dict):
        return {
            "d": [[key, _flatten(part, tensors, f"{path}[{key!r}]")] for key, part in value.items()]
        }
    if isinstance(value, list | tuple):
        kind = "l" if isinstance(value, list) else "u"
        return {kind: [_flatten(p, tensors, f"{path}[{i}]") for i, p in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"v": value}
    raise UserCodeError(
        where="optimizer",
        fault=f"{path} is a {type(value).__name__}, which cannot be carried",
        hint="use --optimizer-state reset or local",
    )


def _unflatten(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if "t" in node:
        return tensors[node["t"]]
    if "d" in node:
        return {key: _unflatten(part, tensors) for key, part in node["d"]}
    if "l" in node:
        return [_unflatten(part, tensors) for part in node["l"]]
    if "u" in node:
        return tuple(_unflatten(part, tensors) for part in node["u"])
    return node["v"]
