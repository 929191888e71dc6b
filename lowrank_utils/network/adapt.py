"""A whole model with adapters: everything frozen, and a low-rank update of chosen layers to train."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.layers.copying import copied, put
from lowrank_utils.layers.lora import LoRALinear
from lowrank_utils.layers.which import layer_of


@torch.inference_mode(False)  # parameters that are made in it can never be trained
def adapt(
    model: nn.Module, ranks: Mapping[str, int], *, scaling: float = 1.0, start: str = "zeros"
) -> nn.Module:
    r"""A copy of ``model`` that is frozen, but for a ``LoRALinear`` in the place of each named layer.

    Until it is trained it computes what ``model`` computes.

    Args:
        model: Any module; it is never changed.
        ranks: ``{dotted name of an nn.Linear: rank}``.
        scaling: alpha / r, the same for all layers.
        start: ``"zeros"`` or ``"pissa"``, as for ``LoRALinear.from_linear``.

    Returns:
        A new model that shares no storage with the old one; of its parameters only the A and B of the named
        layers require a gradient.

    Raises:
        TypeError: If a layer is no ``nn.Linear`` or a rank no integer.
        ValueError: If a layer does not exist or cannot be replaced, a rank or ``scaling`` is out of range, or
            there is no such start.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> adapt(net, {"0": 2})[0]
        LoRALinear(in_features=64, out_features=32, rank=2, alpha=2, bias=True)
    """
    scale = _checks.real(scaling, "scaling", low=0.0, open_low=True)
    frozen = copied(_checks.module(model)).requires_grad_(False)
    for name, rank in ranks.items():
        layer = layer_of(frozen, name)
        if not isinstance(layer, nn.Linear):
            _checks.type_error(f"layer {name!r}", layer, "an nn.Linear")
        r = _checks.rank(rank, layer.out_features, layer.in_features, f"ranks[{name!r}]")
        new = LoRALinear.from_linear(layer, r, alpha=scale * r, start=start)
        frozen = put(frozen, name, new)
        for factor in (new.A, new.B):
            factor.requires_grad_(True)
    return frozen
