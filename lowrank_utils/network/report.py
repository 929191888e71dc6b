"""What ``compress_within`` reports: each layer of each network that it tried, and which one it returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.weighted import WeightedFactors
from lowrank_utils.layers.views import Pick, layer_view
from lowrank_utils.layers.which import layer_of
from lowrank_utils.network.choices import Choices
from lowrank_utils.network.harm import Harm


@dataclass(frozen=True)
class LayerReport:
    """One linear layer of a ``Report``.

    Attributes:
        layer: Dotted name.
        shape: (m, n).
        rank: Its rank, or None if dense; of a convolution without moments the form and its rank.
        params: Weights it stores, without the bias.
        macs: Multiply-adds a sample; None without data, which tell how many rows a sample has.
        error: Relative error of L^T W C^1/2 before any refit: what the allocation reckoned with.
    """

    layer: str
    shape: tuple[int, int]
    rank: Pick | None
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
    frontier: dict[int, tuple[float, dict[str, Pick]]]
    tried: dict[int, tuple[LayerReport, ...]]
    feasible: bool

    def __str__(self) -> str:
        width = max(5, *(len(row.layer) for row in self.layers))
        wide = max(6, *(len(_said(row.rank)) for row in self.layers))
        head = f"{'layer':<{width}} {'shape':>12} {'rank':>{wide}} {'params':>10} {'MACs':>12} {'error':>7}"
        lines = [head] + [
            f"{row.layer:<{width}} {'{} x {}'.format(*row.shape):>12} {_said(row.rank):>{wide}} "
            f"{row.params:>10,} {'' if row.macs is None else f'{row.macs:,}':>12} {row.error:>7.1%}"
            for row in self.layers
        ]
        before, after = self.params
        what = f"{before:,} -> {after:,} parameters ({after / before:.1%})"
        if not self.feasible:
            what = f"nothing smaller keeps the metric within {self.max_drop:g}; the model is unchanged"
        return "\n".join([*lines, f"{what}; score {self.baseline:.4f} -> {self.score:.4f}"])


def _said(rank: Pick | None) -> str:
    """A rank in words: ``7``, ``kernel 3``, ``tucker2 4 x 2``, ``dense``."""
    if rank is None:
        return "dense"
    if not isinstance(rank, tuple):
        return str(rank)
    form, r = rank
    return f"{form} {' x '.join(map(str, r)) if isinstance(r, tuple) else r}"


def layer_reporter(
    model: nn.Module,
    moments: Mapping[str, Moments] | None,
    options: Mapping[str, Choices],
    factors: Mapping[str, WeightedFactors],
    harm: Harm | None = None,
) -> Callable[[Mapping[str, Pick]], tuple[LayerReport, ...]]:
    """Function that gives the rows of the network with these ranks."""
    energies = {}
    for name, choices in options.items():
        W = layer_view(layer_of(model, name)).weight
        if moments is None and harm is None:  # the losses are shares already
            lost: dict[Pick, float] = dict(zip(choices.picks, choices.losses.tolist(), strict=False))
        else:
            energy = factors[name].S.square().cpu().numpy()
            tails = np.append(energy[::-1].cumsum()[::-1], 0.0)[1:]  # what rank 1, 2, ... lose
            shares = tails / max(energy.sum(), np.finfo(float).tiny)
            lost = dict[Pick, float](enumerate(shares.tolist(), start=1))
        for curve in () if harm is None else harm.layers[name].curves:
            lost |= dict(zip(curve.picks(), curve.tails, strict=True)) if curve.form else {}
        energies[name] = (W.shape[0], W.shape[1]), lost

    def row(name: str, rank: Pick | None) -> LayerReport:
        (shape, lost), choices = energies[name], options[name]
        cost = int(choices.costs[-1 if rank is None else choices.picks.index(rank)])
        macs = None if moments is None else round(cost * moments[name].rows / moments[name].samples)
        return LayerReport(name, shape, rank, cost, macs, 0.0 if rank is None else lost[rank] ** 0.5)

    return lambda ranks: tuple(row(name, ranks.get(name)) for name in options)
