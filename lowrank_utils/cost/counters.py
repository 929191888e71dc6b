"""Other people's counters, called so that they leave nothing behind."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.layers.copying import copied


def flopth_counts(model: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    r"""``(macs, params)`` as flopth 0.1.6 counts them, without what flopth leaves behind.

    flopth replaces ``__call__`` of every leaf class for the rest of the process, adds a ``flops``
    buffer to each leaf and switches the model to eval mode. Here it gets a copy, and the classes
    get their ``__call__`` back. Its number is MACs, batch included, without the bias of ``nn.Linear``.

    Args:
        model: Any module with at least one parameter; it is not changed.
        *inputs: What to call it with; the batch counts.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ImportError: If flopth (or torchvision, which it imports) is not installed.

    Example:
        >>> flopth_counts(nn.Linear(4, 10), torch.zeros(120, 4))
        (4800, 50)
    """
    from flopth import flopth  # it imports torchvision, which is slow

    small, inputs = copied((_checks.module(model), inputs))
    leaves = {type(leaf) for leaf in small.modules() if not any(True for _ in leaf.children())}
    before = {leaf: leaf.__dict__.get("__call__") for leaf in leaves}
    try:
        with (
            redirect_stdout(io.StringIO()),
            torch.no_grad(),
            generators_kept(),
        ):  # it prints what it does not know
            macs, params = flopth(small, inputs=inputs, bare_number=True)
    finally:
        for leaf, call in before.items():
            if call is not None:
                leaf.__call__ = call  # type: ignore[method-assign]
            elif "__call__" in leaf.__dict__:
                del leaf.__call__
    return int(macs), int(params)
