"""A model of this package as one of plain torch: each layer in factors as a chain of plain layers."""

from __future__ import annotations

import torch
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.layers.conv import LowRankConv
from lowrank_utils.layers.copying import copied, put
from lowrank_utils.layers.linear import LowRankLinear
from lowrank_utils.layers.pivoted import PivotedLinear


@torch.inference_mode(False)  # parameters that are made in it can never be trained
def to_plain(model: nn.Module) -> nn.Module:
    r"""A copy of ``model`` in which each layer in factors is an ``nn.Sequential`` of plain layers.

    y = U (Vh x) + b becomes nn.Linear(n, r, bias=False), nn.Linear(r, m), and a ``LowRankConv`` the
    convolutions of its chain: other tools then find layers that they know, and the outputs stay what they
    were but for rounding. A state_dict has the keys ``layer.0.weight``, ``layer.1.weight``, ``layer.1.bias``
    and loads without this package into a net whose ``layer`` is such a pair.

    A pivoted layer stores r(m + n) numbers again, which is more than dense where r > mn / (m + n). An
    ``UnpackedAttention`` stays: torch has no attention whose projections are layers.

    Args:
        model: Any module; it is not changed.

    Raises:
        TypeError: If ``model`` is no ``nn.Module``.

    Example:
        >>> net = nn.Sequential(LowRankLinear(8, 6, rank=2), nn.ReLU(), nn.Linear(6, 3))
        >>> sorted(to_plain(net).state_dict())
        ['0.0.weight', '0.1.bias', '0.1.weight', '2.bias', '2.weight']
    """
    plain = copied(_checks.module(model))
    made: dict[int, nn.Module] = {}  # a layer that stands in two places stays one
    for name, layer in list(plain.named_modules(remove_duplicate=False)):
        if isinstance(layer, LowRankLinear | PivotedLinear | LowRankConv):
            if id(layer) not in made:
                made[id(layer)] = layer.to_sequential()
            plain = put(plain, name, made[id(layer)])
    return plain
