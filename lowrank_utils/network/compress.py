"""A whole model: the same network with chosen layers in low rank, as a new model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.factors.svd import balanced_factors
from lowrank_utils.factors.weighted import weighted_factors
from lowrank_utils.layers.copying import replaced
from lowrank_utils.layers.views import LayerView, Pick, layer_view
from lowrank_utils.layers.which import layer_of, layers_of


def compress(
    model: nn.Module,
    ranks: Mapping[str, Pick] | int,
    *,
    moments: Mapping[str, Moments] | None = None,
    pivoted: bool = False,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> nn.Module:
    r"""A copy of ``model`` in which W of each named layer is replaced by a rank-r product.

    Without moments by its truncated SVD, U_r Vh_r; with them by the factors and the bias that least
    change the layer's output (see ``weighted_factors``).

    Args:
        model: Any module; it is never changed.
        ranks: ``{dotted name: rank}`` (empty: nothing is compressed), of a convolution also ``(form,
            rank)`` as for ``LowRankConv``, by weights alone; or one rank for every
            layer in which it saves numbers, by break-even; the others stay dense.
        moments: ``{dotted name: Moments}`` of the layers to be compressed, from ``calibrate``.
        pivoted: Store r(m + n - r) numbers in a ``PivotedLinear`` instead of r(m + n).
        layers: For one rank: names of the layers that take part; by default all that can.
        skip: Names of those that do not.

    Returns:
        A new model that shares no storage with the old one.

    Raises:
        TypeError: If a rank is no integer.
        ValueError: If a layer does not exist, cannot be replaced (it is tied, shared, pruned, ...), has no
            moments, a rank is out of range, or one rank saves nothing anywhere.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> compress(net, {"0": 4})[0]
        LowRankLinear(in_features=64, out_features=32, rank=4, bias=True, core=False)
    """
    _checks.module(model)
    if not isinstance(ranks, Mapping):
        one = _checks.integer(ranks, "ranks", low=1)
        views = layers_of(model, layers=layers, skip=skip)
        ranks = {k: one for k, v in views.items() if one <= break_even_rank(*v.weight.shape)}
        if not ranks:
            _checks.value_error("ranks", one, f"at most the break-even rank of a layer in {list(views)}")
    new: dict[str, nn.Module] = {}
    for name, rank in ranks.items():
        layer = layer_view(layer_of(model, name))
        if isinstance(rank, tuple):
            new[name] = layer.in_form(*rank)
            continue
        seen = None if moments is None else moments.get(name)
        if moments is not None and seen is None:
            _checks.value_error("moments", sorted(moments), f"there for layer {name!r}")
        m, n = layer.weight.shape
        r = _checks.rank(rank, m, n, f"ranks[{name!r}]")
        new[name] = _low_rank(layer, r, seen, pivoted, f"{name}.weight")
    return replaced(model, new)


def _low_rank(layer: LayerView, rank: int, seen: Moments | None, pivoted: bool, what: str) -> nn.Module:
    W, b = _checks.matrix(layer.weight, what), layer.bias
    if seen is not None:
        A, B, change = weighted_factors(W, seen).at(rank)
        return layer.low_rank(A, B, change if b is None else b + change, pivoted=pivoted)
    A, B = balanced_factors(W, rank)
    return layer.low_rank(A, B, b, pivoted=pivoted)
