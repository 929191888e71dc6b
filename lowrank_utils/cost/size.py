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
    r"""Bytes of the file that ``torch.save(model.state_dict(), ...)`` writes, container included.

    A tensor that is a view is written with its whole storage: clone a slice before you keep it.

    Args:
        model: Any module.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.

    Example:
        >>> size_bytes(nn.Linear(100, 100)) > 4 * 10_100
        True
    """
    file = io.BytesIO()
    torch.save(_checks.module(model).state_dict(), file)
    return file.tell()
