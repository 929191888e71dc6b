"""A whole model: the same network with chosen layers in low rank, as a new model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.factors.svd import balanced_factors
from lowrank_utils.factors.weighted import WeightedFactors, weighted_factors
from lowrank_utils.layers.copying import replaced
from lowrank_utils.layers.views import Pick, layer_view
from lowrank_utils.layers.which import layer_of, layers_of
from lowrank_utils.network.decomposed import checked, cut
from lowrank_utils.network.norms import recalibrate_norms


def compress(
    model: nn.Module,
    ranks: Mapping[str, Pick] | int,
    *,
    moments: Mapping[str, Moments] | None = None,
    factors: Mapping[str, WeightedFactors] | None = None,
    pivoted: bool = False,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
    calibration: Any = None,
) -> nn.Module:
    r"""A copy of ``model`` in which W of each named layer is replaced by a rank-r product.

    Without moments by its truncated SVD, U_r diag(S_r) Vh_r; with them by the factors and the bias that
    least change the layer's output (see ``weighted_factors``).

    Args:
        model: Any module; it is never changed.
        ranks: ``{dotted name: rank}`` (empty: nothing is compressed), of a convolution also ``(form,
            rank)`` as for ``LowRankConv``, by weights alone (by data: ``LowRankConv.from_conv``); or one rank
            for every layer in which it saves numbers, by break-even; the others stay dense.
        moments: ``{dotted name: Moments}`` of the layers to be compressed, from ``calibrate``.
        factors: ``{dotted name: weighted_factors(W, moments)}`` of those layers, where they are at hand; in
            the place of ``moments``.
        pivoted: Store r(m + n - r) numbers in a ``PivotedLinear`` instead of r(m + n), but for convolutions
            and embeddings, which have no such form.
        layers: For one rank: names of the layers that take part; by default all that can.
        skip: For one rank: names of those that do not.
        calibration: Samples, or batches, without labels, on which the statistics of batch norms are brought
            back to those of ``model`` (``recalibrate_norms``); by default they stay as they are.

    Returns:
        A new model that shares no storage with the old one.

    Raises:
        TypeError: If a rank is no integer.
        ValueError: If a layer does not exist, cannot be replaced (it is tied, shared, pruned, ...), has no
            moments or factors, a rank is out of range, one rank saves nothing anywhere, or ``layers`` or
            ``skip`` stand beside a mapping.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> compress(net, {"0": 4})[0]
        LowRankLinear(in_features=64, out_features=32, rank=4, bias=True, core=False)
    """
    model = _checks.module(model)
    if not isinstance(ranks, Mapping):
        one = _checks.integer(ranks, "ranks", low=1)
        views = layers_of(model, layers=layers, skip=skip)
        ranks = {k: one for k, v in views.items() if one <= break_even_rank(*v.weight.shape)}
        if not ranks:
            _checks.value_error("ranks", one, f"at most the break-even rank of a layer in {list(views)}")
    elif layers is not None or skip:
        told = "layers" if layers is not None else "skip"
        _checks.value_error(told, layers if layers is not None else skip, "left out: ranks names the layers")
    small = _replaced(model, ranks, moments, factors, pivoted)
    return small if calibration is None else recalibrate_norms(small, model, calibration)


@torch.inference_mode(False)  # parameters that are made in it can never be trained
def _replaced(
    model: nn.Module,
    ranks: Mapping[str, Pick],
    moments: Mapping[str, Moments] | None,
    factors: Mapping[str, WeightedFactors] | None,
    pivoted: bool,
) -> nn.Module:
    """The copy with these ranks."""
    new: dict[str, nn.Module] = {}
    for name, rank in ranks.items():
        layer = layer_view(layer_of(model, name))
        if isinstance(rank, tuple):
            new[name] = layer.in_form(*rank)
            continue
        W = _checks.matrix(layer.weight, f"{name}.weight")
        m, n = W.shape
        r = _checks.rank(rank, m, n, f"ranks[{name!r}]")
        if factors is not None:
            new[name] = cut(layer, checked(factors, name, layer), r, layer.bias, pivoted=pivoted)
        elif moments is not None:
            if name not in moments:
                _checks.value_error("moments", sorted(moments), f"there for layer {name!r}")
            new[name] = cut(layer, weighted_factors(W, moments[name]), r, layer.bias, pivoted=pivoted)
        else:
            A, B = balanced_factors(W, r)
            new[name] = layer.low_rank(A, B, layer.bias, pivoted=pivoted and layer.can_pivot)
    return replaced(model, new)
