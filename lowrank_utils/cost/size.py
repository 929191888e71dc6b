"""How large a model is: its parameters, and the bytes of its file."""

from __future__ import annotations

import io

import torch
from torch import nn

from lowrank_utils import _checks


def count_params(model: nn.Module) -> int:
    r"""Number of parameters; one that is shared counts once.

    Args:
        model: Any module.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.

    Example:
        >>> count_params(nn.Linear(4, 10))
        50
    """
    return sum(p.numel() for p in _checks.module(model).parameters())


def size_bytes(model: nn.Module) -> int:
    r"""Bytes that ``torch.save(model.state_dict(), ...)`` writes into a buffer in memory, container included.

    A file is some bytes smaller or larger: its own name stands before each of its records. A tensor that is
    a view is written with its whole storage: clone a slice before you keep it.

    Args:
        model: Any module.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If a tensor is on the meta device, where there is nothing to write.

    Example:
        >>> size_bytes(nn.Linear(100, 100)) > 4 * 10_100
        True
    """
    file = io.BytesIO()
    state = _checks.module(model).state_dict()
    if any(isinstance(t, torch.Tensor) and t.is_meta for t in state.values()):
        _checks.value_error("model", model, "a module with numbers to write, and not on the meta device")
    torch.save(state, file)
    return file.tell()
