"""Layers made to hold tensors that are there already: nothing is drawn, and no generator moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def holding(kind: type[Layer], *sizes: Any, parameters: Mapping[str, Tensor | None], **options: Any) -> Layer:
    """``kind(*sizes, **options)`` with copies of these tensors as its parameters.

    It is made on the meta device, where to initialise is to do nothing. ``nn.utils.skip_init`` would do, but
    its first call imports half a second of sympy.

    Args:
        kind: Class of the layer, whose ``__init__`` takes a device.
        *sizes: For its ``__init__``.
        parameters: ``{name: tensor}``, None where the options say that it has none.
        **options: For its ``__init__``.
    """
    layer = kind(*sizes, device="meta", **options)
    for name, tensor in parameters.items():
        if tensor is not None:
            setattr(layer, name, parameter(tensor))
    return layer


def parameter(tensor: Tensor) -> nn.Parameter:
    """A contiguous copy of a plain tensor, to be trained."""
    copy = tensor.detach().as_subclass(Tensor).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(copy)


def linear_of(W: Tensor, bias: Tensor | None) -> nn.Linear:
    """``nn.Linear`` with copies of W (m, n) and bias (m,)."""
    m, n = W.shape
    given = {"weight": W, "bias": None if bias is None else bias.to(W.dtype)}
    return holding(nn.Linear, n, m, bias is not None, parameters=given)


def frozen_as(old: nn.Module, new: Layer) -> Layer:
    """``new`` itself, its factors frozen as the weight of ``old`` is, and a bias as its bias."""
    trained = dict.fromkeys((False, True), False)  # whether it is a bias: whether one of them is trained
    for key, p in old.named_parameters():
        trained[_is_bias(key)] |= p.requires_grad
    has_bias = any(_is_bias(key) for key, _ in old.named_parameters())
    for key, p in new.named_parameters():
        if not trained[_is_bias(key) and has_bias]:
            p.requires_grad_(False)
    return new


def _is_bias(key: str) -> bool:
    return key.rpartition(".")[2] in ("bias", "start", "shift")  # a pivoted layer keeps it in two parts
