"""Each layer decomposed once, however many ranks, budgets and functions ask for its factors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.weighted import WeightedFactors, plain_factors, weighted_factors
from lowrank_utils.layers.views import LayerView, layer_view
from lowrank_utils.layers.which import layer_of


class LayerFactors(dict[str, WeightedFactors]):
    """``{layer: factors}`` of a model, each decomposed when it is first asked for.

    Args:
        model: Any module; it must not change meanwhile.
        moments: Of its layers, for factors by the data; None: by plain SVD.
    """

    def __init__(self, model: nn.Module, moments: Mapping[str, Moments] | None) -> None:
        super().__init__()
        self._model, self._moments = model, moments

    def __missing__(self, name: str) -> WeightedFactors:
        W = _checks.matrix(layer_view(layer_of(self._model, name)).weight, f"{name}.weight")
        found = plain_factors(W) if self._moments is None else weighted_factors(W, self._moments[name])
        self[name] = found
        return found


def checked(factors: Mapping[str, WeightedFactors], name: str, layer: LayerView) -> WeightedFactors:
    """The factors at hand, if they are of this layer's weight.

    Raises:
        ValueError: If there are none of this name, or they are of another weight.
    """
    if not isinstance(factors, LayerFactors) and name not in factors:
        _checks.value_error("factors", sorted(factors), f"there for layer {name!r}")
    found = factors[name]
    if not found.are_of(layer.weight):
        raise ValueError(f"factors[{name!r}] must be those of the layer's weight, and are of another")
    return found


def cut(
    layer: LayerView, factors: WeightedFactors, rank: int, bias: Tensor | None, *, pivoted: bool = False
) -> nn.Module:
    """The layer at this rank, pivoted if that is asked for and it can be; ``bias`` is the full layer's."""
    A, B, change = factors.at(rank)
    if bias is not None or bool(change.any()):  # a layer without a bias has none if it would be zero
        bias = change if bias is None else bias + change
    return layer.low_rank(A, B, bias, pivoted=pivoted and layer.can_pivot)
