"""A whole model: the same network with chosen layers in low rank, as a new model."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.factors.weighted import weighted_factors
from lowrank_utils.layers.linear import LowRankLinear
from lowrank_utils.layers.pivoted import PivotedLinear


def compress(
    model: nn.Module,
    ranks: Mapping[str, int] | int,
    *,
    moments: Mapping[str, Moments] | None = None,
    pivoted: bool = False,
) -> nn.Module:
    r"""A copy of ``model`` in which W of each named layer is replaced by a rank-r product.

    Without moments by its truncated SVD, U_r Vh_r; with them by the factors and the bias that least
    change the layer's output (see ``weighted_factors``).

    Args:
        model: Any module; it is never changed.
        ranks: ``{dotted name: rank}`` (empty: nothing is compressed), or one rank for every
            ``nn.Linear`` in which it saves numbers, by break-even; the others stay dense.
        moments: ``{dotted name: Moments}`` of the layers to be compressed, from ``calibrate``.
        pivoted: Store r(m + n - r) numbers in a ``PivotedLinear`` instead of r(m + n).

    Returns:
        A new model that shares no storage with the old one.

    Raises:
        TypeError: If a rank is no integer.
        ValueError: If a layer does not exist, is no ``nn.Linear`` or is shared, has no moments, a
            rank is out of range, or one rank saves nothing anywhere.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> compress(net, {"0": 4})[0]
        LowRankLinear(in_features=64, out_features=32, rank=4, bias=True, core=False)
    """
    _checks.module(model)
    if not isinstance(ranks, Mapping):
        rank = _checks.integer(ranks, "ranks", low=1)
        linears = {k: v for k, v in model.named_modules() if type(v) is nn.Linear}
        ranks = {k: rank for k, v in linears.items() if rank <= break_even_rank(*v.weight.shape)}
        if not ranks:
            _checks.value_error("ranks", rank, f"at most the break-even rank of a layer in {list(linears)}")
    new: dict[str, nn.Module] = {}
    for name, rank in ranks.items():
        linear = _checks.linear_layer(model, name)
        seen = None if moments is None else moments.get(name)
        if moments is not None and seen is None:
            _checks.value_error("moments", sorted(moments), f"there for layer {name!r}")
        m, n = linear.weight.shape
        new[name] = _low_rank(linear, _checks.rank(rank, m, n, f"ranks[{name!r}]"), seen, pivoted)
    if "" in new:
        return new[""]  # the model is itself the layer
    small = copy.deepcopy(model)
    for name, layer in new.items():
        small.set_submodule(name, layer)
    return small


def _low_rank(linear: nn.Linear, rank: int, seen: Moments | None, pivoted: bool) -> nn.Module:
    form = PivotedLinear if pivoted else LowRankLinear
    if seen is None:
        return form.from_linear(linear, rank)
    A, B, b = weighted_factors(linear.weight, seen).at(rank)
    if linear.bias is not None:
        b = b + linear.bias.detach()
    return form.from_factors(A, B, b).to(linear.weight.dtype).train(linear.training)
