"""The optimizers of a function's slots: made by the user, with the state that the policy asks for.

``FunctionRuntime`` takes one for each round.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kubeml.errors import UserCodeError
from kubeml.runtime import optimizer_state as state_codec
from kubeml.runtime.user_code import user_code


@dataclass
class _SlotOptimizer:
    """The optimizer of one slot in one epoch, and what it began with.

    Attributes:
        epoch: The epoch it was made in.
        optimizer: The optimizer that the user returned.
        groups: Its first hyper-parameters, by parameter group.
        state: Its first state, which is empty but for optimizers that fill it when they are made
            (Adagrad in older releases of torch).
        held: The encoded state that it holds if it is untouched; None if it was used or cleared.
    """

    epoch: int
    optimizer: torch.optim.Optimizer
    groups: list[dict[str, Any]]
    state: dict[Any, Any]
    held: bytes | None = None


class SlotOptimizers:
    """One optimizer per slot, made once per epoch.

    Args:
        configure: The user's ``configure_optimizers``.
    """

    def __init__(self, configure: Callable[[], Any]) -> None:
        self._configure = configure
        self._slots: dict[int, _SlotOptimizer] = {}
        self._last: _SlotOptimizer | None = None

    def begin(
        self, epoch: int, slot: int, policy: str, state: bytes | None
    ) -> torch.optim.Optimizer:
        """Return the slot's optimizer for the begin of a round, with its first hyper-parameters.

        They are put back because a learning rate that ``train`` changed would otherwise live on in
        this process, but not in another process that takes the slot over: the weights would differ.

        Raises:
            UserCodeError: The user's code raised, or returned no optimizer.
            MalformedMessage: ``state`` is not an encoded state.
        """
        kept = self._slots.get(slot)
        if kept is None or kept.epoch != epoch:
            old = kept.optimizer if kept else None
            kept = self._slots[slot] = self._make(epoch)
            if policy == "local" and old is not None:
                _put(kept.optimizer, old.state_dict()["state"])
        for group, original in zip(kept.optimizer.param_groups, kept.groups, strict=True):
            group.update(copy.deepcopy(original))
        held, kept.held = kept.held, None
        if policy == "local" or (held is not None and held is state):
            return kept.optimizer
        kept.optimizer.state.clear()
        if policy == "carry" and state is not None:
            state_codec.decode(kept.optimizer, state)
        elif kept.state:
            _put(kept.optimizer, kept.state)
        return kept.optimizer

    def end(self, slot: int, policy: str) -> bytes | None:
        """Return the state to carry to the slot's next round; None if the policy carries none."""
        kept = self._slots[slot]
        if policy == "local":
            return None
        if self._last is not None and self._last is not kept:
            # A process may serve many slots, and need not hold the momentum of each.
            self._last.optimizer.state.clear()
            self._last.held = None
        self._last = kept
        if policy == "carry":
            kept.held = state_codec.encode(kept.optimizer)
        else:
            kept.optimizer.state.clear()
        return kept.held

    def _make(self, epoch: int) -> _SlotOptimizer:
        with user_code("configure_optimizers()"):
            optimizer = self._configure()
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserCodeError(
                where="configure_optimizers()",
                fault=f"returned a {type(optimizer).__name__}, expected a torch optimizer",
            )
        groups = [
            {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        state = copy.deepcopy(optimizer.state_dict()["state"])
        return _SlotOptimizer(epoch=epoch, optimizer=optimizer, groups=groups, state=state)


def _put(optimizer: torch.optim.Optimizer, state: dict[Any, Any]) -> None:
    groups = optimizer.state_dict()["param_groups"]
    # load_state_dict keeps tensors that already fit, and the optimizer then changes them in place.
    optimizer.load_state_dict({"state": copy.deepcopy(state), "param_groups": groups})
