"""An optimizer's state as bytes: safetensors plus its structure as JSON; bit-exact, no pickle.

Jobs with the policy ``carry`` send it from round to round. The state's tensors lie end to end in
one safetensors tensor per dtype, named after the dtype. That makes a copy or two in all, though a
network has hundreds of small tensors. The structure says where each of them lies.
"""

import json
from math import prod
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from kubeml.errors import MalformedMessage, UserCodeError
from kubeml.runtime.device_copies import fetch


def encode(optimizer: torch.optim.Optimizer) -> bytes:
    """Return the optimizer's state (momentum and the like, not its hyper-parameters).

    Raises:
        UserCodeError: The state holds something that is neither a tensor nor a plain value.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    structure = _Flattener(parts).flatten(optimizer.state_dict()["state"], "state")
    tensors = {dtype: torch.cat(fetch(flat)) for dtype, flat in parts.items()}
    return save(tensors, metadata={"structure": json.dumps(structure)})


def decode(optimizer: torch.optim.Optimizer, blob: bytes) -> None:
    """Put an encoded state into an optimizer of the same parameters.

    Raises:
        MalformedMessage: The bytes are not an encoded state of such an optimizer.
    """
    try:
        tensors = load(blob)
        header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        structure = json.loads(header["__metadata__"]["structure"])
        state = _unflatten(structure, tensors)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (LookupError, ValueError, TypeError, RuntimeError, SafetensorError) as err:
        raise MalformedMessage(what="optimizer state", fault=str(err)) from err


class _Flattener:
    """Describes a state as JSON, and gathers its tensors by dtype, flattened."""

    def __init__(self, parts: dict[str, list[torch.Tensor]]) -> None:
        self._parts = parts
        self._lengths: dict[str, int] = {}

    def flatten(self, value: Any, path: str) -> Any:
        if isinstance(value, torch.Tensor):
            return {"t": self._append(value)}
        if isinstance(value, dict):
            return {
                "d": [[key, self.flatten(part, f"{path}[{key!r}]")] for key, part in value.items()]
            }
        if isinstance(value, list | tuple):
            kind = "l" if isinstance(value, list) else "u"
            return {kind: [self.flatten(p, f"{path}[{i}]") for i, p in enumerate(value)]}
        if value is None or isinstance(value, bool | int | float | str):
            return {"v": value}
        raise UserCodeError(
            where="optimizer",
            fault=f"{path} is a {type(value).__name__}, which cannot be carried",
            hint="use --optimizer-state reset or local",
        )

    def _append(self, tensor: torch.Tensor) -> list[Any]:
        dtype = str(tensor.dtype).removeprefix("torch.")
        offset = self._lengths.get(dtype, 0)
        self._lengths[dtype] = offset + tensor.numel()
        self._parts.setdefault(dtype, []).append(tensor.detach().reshape(-1))
        return [dtype, offset, list(tensor.shape)]


def _unflatten(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if "t" in node:
        dtype, offset, shape = node["t"]
        # A view will do: neighbours share the storage, and each is only changed in place.
        return tensors[dtype].narrow(0, offset, prod(shape)).view(shape)
    if "d" in node:
        return {key: _unflatten(part, tensors) for key, part in node["d"]}
    if "l" in node:
        return [_unflatten(part, tensors) for part in node["l"]]
    if "u" in node:
        return tuple(_unflatten(part, tensors) for part in node["u"])
    return node["v"]
