r"""Every layer's rank under one budget: the minimum of a sum of tails, or of their powers, exactly.

Each layer offers options (cost, loss): rank r costs r(m + n) and loses the tail sum_{i > r} s_i^2; staying
dense costs mn and loses nothing. To choose one option a layer is a multiple-choice knapsack.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.svd import singular_values
from lowrank_utils.factors.weighted import WeightedFactors, weighted_factors
from lowrank_utils.layers.views import Pick
from lowrank_utils.layers.which import measured_of, some_layers_of
from lowrank_utils.network.choices import Choices, form_options, rank_options
from lowrank_utils.network.decomposed import checked
from lowrank_utils.network.harm import Harm, harm_options
from lowrank_utils.network.knapsack import cheapest_choice


def layer_options(
    model: nn.Module,
    moments: Mapping[str, Moments] | None = None,
    *,
    factors: Mapping[str, WeightedFactors] | None = None,
    cost: str = "params",
    pivoted: bool = False,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
    harm: Harm | None = None,
) -> dict[str, Choices]:
    """What each layer can become, of those with moments if there are any; as ``allocate_ranks``."""
    by_macs = _checks.choice(cost, "cost", ("params", "macs")) == "macs"
    if by_macs and moments is None:
        _checks.value_error("moments", moments, "given for cost='macs': they count the rows of each layer")
    model = _checks.module(model)
    views = some_layers_of(model, layers=layers, skip=skip)
    for told, known in (("moments", moments), ("harm", None if harm is None else harm.layers)):
        views = measured_of(views, known, told)
    options = {}
    for name, seen in views.items():
        W = seen.weight
        m, n = W.shape
        pivots = pivoted and seen.can_pivot
        share = 1.0 if moments is None else moments[name].rows / moments[name].samples  # rows of a sample
        if harm is not None:
            if harm.layers[name].shape != (m, n):
                _checks.value_error("harm", harm.layers[name].shape, f"of {name!r}, which is {m} x {n}")
            options[name] = harm_options(harm.layers[name], rows=share if by_macs else None, pivoted=pivots)
        elif moments is not None:  # the losses of a sample's rows add up
            found = weighted_factors(W, moments[name]) if factors is None else checked(factors, name, seen)
            S = found.S.cpu().numpy() * share**0.5
            options[name] = rank_options((m, n), S, rows=share if by_macs else 1.0, pivoted=pivots)
        elif forms := seen.forms():
            options[name] = form_options(m * n, forms)
        else:
            S = singular_values(W).cpu().numpy()
            S = S / max(float(np.linalg.norm(S)), np.finfo(float).tiny)
            options[name] = rank_options((m, n), S, pivoted=pivots)
    return options


def ranks_within(options: Mapping[str, Choices], budget: float, norm: float = 1.0) -> dict[str, Pick]:
    """``allocate_ranks`` for options at hand: their costs' sum stays within ``budget`` of all dense."""
    budget = _checks.real(budget, "budget", low=0.0, high=1.0, open_low=True)
    norm = _checks.real(norm, "norm", low=1.0, high=16.0)
    total = sum(int(choices.costs[-1]) for choices in options.values())
    limit = math.floor(budget * total)
    largest = max((float(choices.losses.max()) for choices in options.values()), default=0.0) or 1.0
    scale = 1.0 if norm == 1 else largest  # powers of tiny losses would be nothing
    powers = [(choices.costs, (choices.losses / scale) ** norm) for choices in options.values()]
    chosen = cheapest_choice(powers, limit)
    if chosen is None:
        least = sum(int(choices.costs.min()) for choices in options.values()) / total
        _checks.value_error("budget", budget, f"at least {least:.4g}, which the cheapest ranks cost")
    pairs = zip(options.items(), chosen, strict=True)
    return {name: choices.picks[i] for (name, choices), i in pairs if i < len(choices.picks)}


def allocate_ranks(
    model: nn.Module,
    budget: float,
    *,
    moments: Mapping[str, Moments] | None = None,
    factors: Mapping[str, WeightedFactors] | None = None,
    cost: str = "params",
    pivoted: bool = False,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
    harm: Harm | None = None,
    norm: float = 1.0,
) -> dict[str, Pick]:
    r"""Ranks that lose least within a budget, over every ``nn.Linear``; a layer left out stays dense.

    Without moments a layer's loss at rank r is its share of energy, sum_{i > r} s_i^2 / sum_i s_i^2; of a
    convolution the form is chosen with the rank, from those of ``conv_options``.
    With moments from ``calibrate`` the s_i are those of L^T W C^1/2, and a tail estimates
    what the loss of the whole model rises by, so tails of different layers can be added. That holds for
    small losses. Where a budget cuts a chain deep, try ``norm=2`` too, the least sum_l loss_l^2, in which
    the largest counts most, and one rank for all layers. (Over 26 budgets of classifiers of three and five
    layers, from 1.3 % of the weights on, refitted, squares were half a point behind the sum at worst; where
    they were more than two points ahead, up to 34, they chose one rank. At 0.9 % they were 14 points behind
    one rank, and 3 behind the sum; on a sentence encoder, whose blocks add to what came before, one to two
    behind the sum.)

    Shares of energy are no losses of the model, and their sum has no such reason: on those classifiers, by
    weights alone over 14 budgets, squares were half a point behind it at worst and up to 36 ahead, and on a
    pitch detector's convolutions 1 to 24 ahead; on the encoder 1 and 7 ahead at 80 and 60 %, and 14 behind
    at 40. ``norm=16``, about the same share in every layer, was better still on the pitch detector; on the
    classifiers, whose heads are narrow, it was up to 14 points behind the sum. So compare, before you trust.

    Args:
        model: Any module.
        budget: Share of the linear layers' weights (or MACs) to keep, in (0, 1].
        moments: ``{layer: Moments}``; only these layers are then ranked, the others are left alone.
        factors: ``{layer: weighted_factors(W, moments)}``, where they are at hand, beside the moments.
        cost: ``"params"``, or ``"macs"`` (needs moments, which know how many rows each layer sees).
        pivoted: Count r(m + n - r) numbers a layer, as ``PivotedLinear`` holds, instead of r(m + n), but for
            convolutions and embeddings, which have no such form.
        layers: Names of the layers that take part; by default all that can.
        skip: Names of those that do not.
        harm: From ``measure_harm``, with the same moments if any: its losses take the place of the tails.
        norm: p of the sum_l loss_l^p that is minimised, from 1, for losses that add up, to 16, where the
            largest counts almost alone.

    Returns:
        ``{dotted name: rank}`` for ``compress``; of a convolution, without moments, ``(form, rank)``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the budget does not even hold the cheapest ranks, moments or factors are missing, the
            factors are of another weight, or ``harm`` is of layers of other shapes.

    Example:
        >>> allocate_ranks(nn.Sequential(nn.Linear(64, 64)), budget=0.5)
        {'0': 16}
    """
    if factors is not None and moments is None:
        _checks.value_error("moments", moments, "given with factors")
    options = layer_options(
        model, moments, factors=factors, cost=cost, pivoted=pivoted, layers=layers, skip=skip, harm=harm
    )
    return ranks_within(options, budget, norm)
