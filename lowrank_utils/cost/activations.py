"""Memory of training: what autograd keeps from the forward for the backward pass."""

from __future__ import annotations

import collections
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.cost.macs import compiled_paths_off, differentiable, generators_kept, gradients
from lowrank_utils.cost.owners import Owners
from lowrank_utils.layers.copying import copied


def saved_bytes(model: nn.Module, inputs: tuple[Any, ...]) -> collections.Counter[str]:
    """{layer: bytes of the storages that it was the first to save}."""
    with gradients(), generators_kept(), compiled_paths_off():
        model, inputs = copied((_checks.module(model), inputs))
        owners, saved = Owners(model), collections.Counter[str]()
        own = [*model.parameters(), *model.buffers()]
        # kept alive while we look: a storage that is freed would give its address to the next
        storages = {storage._cdata: storage for storage in (t.untyped_storage() for t in own)}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in storages:
                storages[storage._cdata] = storage
                saved[owners.current()] += storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = model(*inputs)
        differentiable(outputs)
    return saved


def activation_bytes(model: nn.Module, *inputs: Any) -> int:
    r"""Bytes that autograd saves in a forward for the backward pass: the activations of a training step.

    A layer y = W x saves its input for dL/dW, an activation its output or a mask: each storage once, however
    many layers need it, and the whole storage where a view is saved. ``inputs`` count, as a graph keeps
    them alive; parameters and buffers do not, as they are there anyway. Gradients, the optimizer's state
    and what is freed within the forward are not in it, nor what a custom function hides outside of
    ``save_for_backward``. With gradient checkpointing only what is kept counts.

    The forward runs as the model stands (train or eval), fused paths and all, on a deep copy.

    Args:
        model: Any module that can be copied; it is not changed.
        *inputs: What to call it with; the batch counts.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.
        ValueError: If the output has no gradient.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 3))
        >>> activation_bytes(net, torch.zeros(120, 4))  # 120 x (4 + 10) numbers: ReLU's output is saved once
        6720
    """
    return saved_bytes(model, inputs).total()
