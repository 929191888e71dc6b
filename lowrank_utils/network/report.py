"""What ``compress_within`` reports: each layer of each network that it tried, and which one it returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.svd import singular_values
from lowrank_utils.factors.weighted import weighted_factors
from lowrank_utils.layers.views import layer_view
from lowrank_utils.layers.which import layer_of
from lowrank_utils.network.knapsack import Options


@dataclass(frozen=True)
class LayerReport:
    """One linear layer of a ``Report``.

    Attributes:
        layer: Dotted name.
        shape: (m, n).
        rank: Its rank, or None if dense.
        params: Weights it stores, without the bias.
        macs: Multiply-adds a sample; None without data, which tell how many rows a sample has.
        error: Relative error of L^T W C^1/2 before any refit: what the allocation reckoned with.
    """

    layer: str
    shape: tuple[int, int]
    rank: int | None
    params: int
    macs: int | None
    error: float


@dataclass(frozen=True)
class Report:
    """What ``compress_within`` did.

    Attributes:
        layers: One row a linear layer.
        baseline: Metric of the model as it was given.
        score: Metric of the model returned.
        max_drop: The drop allowed.
        params: Parameters before and after.
        frontier: ``{parameters: (score, ranks)}`` of every network that was tried, by rising size.
        tried: ``{parameters: rows}``, the layers of each of those networks.
        feasible: Whether a smaller network kept the metric; if not, the model returned is a copy.
    """

    layers: tuple[LayerReport, ...]
    baseline: float
    score: float
    max_drop: float
    params: tuple[int, int]
    frontier: dict[int, tuple[float, dict[str, int]]]
    tried: dict[int, tuple[LayerReport, ...]]
    feasible: bool

    def __str__(self) -> str:
        width = max(5, *(len(row.layer) for row in self.layers))
        head = f"{'layer':<{width}} {'shape':>12} {'rank':>6} {'params':>10} {'MACs':>12} {'error':>7}"
        lines = [head] + [
            f"{row.layer:<{width}} {'{} x {}'.format(*row.shape):>12} {row.rank or 'dense':>6} "
            f"{row.params:>10,} {'' if row.macs is None else f'{row.macs:,}':>12} {row.error:>7.1%}"
            for row in self.layers
        ]
        before, after = self.params
        what = f"{before:,} -> {after:,} parameters ({after / before:.1%})"
        if not self.feasible:
            what = f"nothing smaller keeps the metric within {self.max_drop:g}; the model is unchanged"
        return "\n".join([*lines, f"{what}; score {self.baseline:.4f} -> {self.score:.4f}"])


def layer_reporter(
    model: nn.Module, moments: Mapping[str, Moments] | None, options: Mapping[str, Options]
) -> Callable[[Mapping[str, int]], tuple[LayerReport, ...]]:
    """Function that gives the rows of the network with these ranks."""
    energies = {}
    for name in options:
        W = layer_view(layer_of(model, name)).weight
        S = singular_values(W) if moments is None else weighted_factors(W, moments[name]).S
        energies[name] = (W.shape[0], W.shape[1]), S.square()

    def row(name: str, rank: int | None) -> LayerReport:
        (shape, energy), (costs, _) = energies[name], options[name]
        cost = int(costs[-1] if rank is None else costs[rank - 1])
        tail = float(energy[rank:].sum() / energy.sum()) if rank is not None and energy.any() else 0.0
        macs = None if moments is None else round(cost * moments[name].rows / moments[name].samples)
        return LayerReport(name, shape, rank, cost, macs, tail**0.5)

    return lambda ranks: tuple(row(name, ranks.get(name)) for name in options)
