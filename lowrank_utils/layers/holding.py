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
