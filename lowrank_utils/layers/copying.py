"""A copy of a model that can be run and changed as one likes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lowrank_utils.layers.fused import leave_fused_path
from lowrank_utils.layers.holding import frozen_as

Things = TypeVar("Things")

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


class _Detached(TorchFunctionMode):
    """Lets deepcopy copy a tensor with a history too, such as the one weight_norm leaves behind."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[1].setdefault(id(args[0]), args[0].detach().clone())
        return func(*args, **(kwargs or {}))


def copied(things: Things) -> Things:
    """A deep copy; what was one tensor is one again, and one with a history is copied without it."""
    with torch.inference_mode(False), _Detached():
        made = copy.deepcopy(things)
    for p in made.parameters() if isinstance(made, nn.Module) else ():
        if not p.is_leaf:  # of a part from torch.jit, which torch copies as a function of the old one's
            p.detach_().requires_grad_()
    return made


def replaced(model: nn.Module, new: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of ``model`` with these layers in place of the old ones of the same names."""
    small = model if "" in new else copied(model)
    for name, layer in new.items():
        small = put(small, name, layer)
    return small


def put(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put a layer into ``model`` itself, which is returned, with the hooks and the mode of the old one.

    Torch's fused encoder layers, which read weights and call no layer, are left.
    """
    old = model.get_submodule(name)
    take_over(old, layer)
    frozen_as(old, layer)
    if name == "":
        return layer
    model.set_submodule(name, layer)
    leave_fused_path(model)
    return model


def take_over(old: nn.Module, new: nn.Module) -> None:
    """Give ``new`` the mode and hooks of ``old``."""
    for hooks in _HOOKS:
        getattr(new, hooks).update(getattr(old, hooks))
    new._is_full_backward_hook = old._is_full_backward_hook
    new.train(old.training)
