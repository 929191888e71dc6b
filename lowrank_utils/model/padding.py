"""Which positions of a batch count: texts of unlike lengths are filled up, and what fills them is no data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowrank_utils import _checks

Mask = Callable[[Any], Any]
"""A callable(inputs of a batch) -> (N, T), True or 1 at the positions that count."""
ENTRY = "attention_mask"
PADDING = ("src_key_padding_mask", "key_padding_mask")  # of nn.TransformerEncoder and nn.MultiheadAttention


def mask_of(inputs: Any, mask: Mask | None) -> Tensor | None:
    """The mask (N, T) of a batch, by default what a mapping names so; None for every position.

    An ``attention_mask`` has 1 at the positions that count. Torch's ``src_key_padding_mask`` and
    ``key_padding_mask`` have the opposite: True, or -inf where they are floating, at those that fill up.

    Raises:
        TypeError: If the mask is no tensor.
        ValueError: If it has not two axes, or leaves no position.
    """
    if mask is not None:
        found = mask(inputs)
    else:
        found = _named(inputs) if isinstance(inputs, Mapping) else None
        if found is None or np.ndim(found) != 2:  # (T, T) for each head, say, is about pairs
            return None
    found = torch.as_tensor(found) if isinstance(found, np.ndarray) else found
    if not isinstance(found, Tensor):
        _checks.type_error("mask(inputs)", found, "a tensor (N, T)")
    if found.ndim != 2 or (len(found) and not bool(found.any())):  # an empty batch has none
        _checks.value_error("mask(inputs)", found, "of shape (N, T), with a position that counts")
    return found.bool()


def _named(inputs: Mapping[str, Any]) -> Any:
    """What a batch with named arguments says of its padding, 1 or True at the positions that count."""
    if inputs.get(ENTRY) is not None:
        return inputs[ENTRY]
    padding = next((inputs[name] for name in PADDING if isinstance(inputs.get(name), Tensor)), None)
    return None if padding is None else (padding == 0)  # False or 0.0: nothing is added to its scores


def counted(rows: Tensor, shape: torch.Size, mask: Tensor | None) -> Tensor:
    """Those of a tensor's rows (N T, n) that count; all of a layer that has not one for each position.

    Args:
        rows: Of a tensor, in its order.
        shape: Of that tensor, (N, T, n), (T, N, n) or (N T, n).
        mask: (N, T), or None.
    """
    if mask is None or len(rows) != mask.numel():
        return rows
    turned = shape[:2] != mask.shape and shape[:2] == mask.T.shape
    return rows[(mask.T if turned else mask).reshape(-1)]
