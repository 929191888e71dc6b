r"""Every layer's rank under one budget: the minimum of a sum of tails, exactly.

Each layer offers options (cost, loss): rank r costs r(m + n) and loses the tail sum_{i > r} s_i^2; staying
dense costs mn and loses nothing. To choose one option a layer with the least total loss within a budget
is the multiple-choice knapsack. A Lagrange multiplier gives a bound and a solution that misses
it by a small gap; an option whose own penalty exceeds the gap cannot be part of an optimum, and the few left
over are searched completely.

Reference:
    Sinha & Zoltners, "The multiple-choice knapsack problem", 1979; Everett 1963.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lowrank_utils import _checks
from lowrank_utils.calibrate import Moments
from lowrank_utils.data_aware import weighted_factors
from lowrank_utils.svd import singular_values

Options = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Costs and losses of one layer's options."""


def cheapest_choice(layers: Sequence[Options], limit: int) -> list[int] | None:
    r"""One option a layer with the least total loss and a total cost <= limit; None if none fits.

    Args:
        layers: (costs, losses) of each layer's options, equally long.
        limit: Largest total cost.

    Raises:
        ValueError: If a layer has no option.

    Example:
        >>> cheap, dear = (np.array([1, 4]), np.array([2.0, 0.0])), (np.array([1, 4]), np.array([9.0, 0.0]))
        >>> cheapest_choice([cheap, dear], 5)
        [0, 1]
    """
    for costs, _ in layers:
        _checks.integer(len(costs), "options of a layer", low=1)
    if sum(int(costs.min()) for costs, _ in layers) > limit:
        return None
    choice, multiplier = _relaxed(layers, limit)
    total = sum(float(losses[i]) for (_, losses), i in zip(layers, choice, strict=True))
    penalties = [losses + multiplier * costs for costs, losses in layers]
    bound = sum(float(p.min()) for p in penalties) - multiplier * limit
    gap = (total - bound) * (1 + 1e-9) + 1e-12 * abs(total)
    states: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]  # cost, loss, options so far
    rest = sum(int(costs.min()) for costs, _ in layers)
    for (costs, losses), p in zip(layers, penalties, strict=True):
        rest -= int(costs.min())
        near = np.flatnonzero(p - p.min() <= gap)  # the others cannot stand in an optimum
        grown = sorted(
            (cost + int(costs[i]), loss + float(losses[i]), (*chosen, int(i)))
            for cost, loss, chosen in states
            for i in near
            if cost + int(costs[i]) + rest <= limit
        )
        states, best = [], math.inf
        for state in grown:  # dearer without being better: dominated
            if state[1] < best:
                states.append(state)
                best = state[1]
    return list(states[-1][2])


def _relaxed(layers: Sequence[Options], limit: int) -> tuple[list[int], float]:
    """The best feasible Lagrangian choice, and its multiplier, by bisection."""

    def at(multiplier: float) -> tuple[list[int], int]:
        best = [int(np.lexsort((costs, losses + multiplier * costs))[0]) for costs, losses in layers]
        return best, sum(int(costs[i]) for (costs, _), i in zip(layers, best, strict=True))

    cheapest = [int(np.lexsort((losses, costs))[0]) for costs, losses in layers]
    low, high = 0.0, 1.0
    free, cost = at(0.0)
    if cost <= limit:
        return free, 0.0
    while at(high)[1] > limit and high < 1e300:
        high *= 4
    found = at(high)[0] if at(high)[1] <= limit else cheapest
    for _ in range(100):
        middle = (low + high) / 2
        choice, cost = at(middle)
        if cost <= limit:
            found, high = choice, middle
        else:
            low = middle
    return found, high


def rank_options(
    shape: tuple[int, int], spectrum: NDArray[np.float64], *, rows: float = 1.0, pivoted: bool = False
) -> Options:
    """Options rank 1, 2, ..., dense of a layer (m, n): costs times ``rows``, tails of the spectrum."""
    m, n = shape
    r = np.arange(1, min(m, n) + 1)
    costs = r * (m + n - r) if pivoted else r * (m + n)
    tail = np.append(np.cumsum(spectrum[::-1] ** 2)[::-1], 0.0)[1:]  # tail[r - 1] = sum_{i > r}
    saves = costs < m * n
    costs, losses = np.append(costs[saves], m * n), np.append(tail[saves], 0.0)
    return np.ceil(costs * rows).astype(np.int64), losses


def layer_options(
    model: nn.Module,
    moments: Mapping[str, Moments] | None = None,
    *,
    cost: str = "params",
    pivoted: bool = False,
) -> dict[str, Options]:
    """Options of every ``nn.Linear``, or of those with moments; arguments as in ``allocate_ranks``."""
    by_macs = _checks.choice(cost, "cost", ("params", "macs")) == "macs"
    if by_macs and moments is None:
        _checks.value_error("moments", moments, "given for cost='macs': they count the rows of each layer")
    names = [name for name, layer in _checks.module(model).named_modules() if type(layer) is nn.Linear]
    names = [name for name in names if moments is None or name in moments]
    if not names:
        _checks.value_error("model", model, "a module with an nn.Linear that is ranked")
    options = {}
    for name in names:
        W, rows = _checks.linear_layer(model, name).weight, 1.0
        if moments is None:
            S = singular_values(W).cpu().numpy()
            S = S / max(float(np.linalg.norm(S)), np.finfo(float).tiny)
        else:
            S = weighted_factors(W, moments[name]).S.cpu().numpy()
            rows = moments[name].rows / moments[name].samples if by_macs else 1.0
        options[name] = rank_options((W.shape[0], W.shape[1]), S, rows=rows, pivoted=pivoted)
    return options


def ranks_within(options: Mapping[str, Options], budget: float) -> dict[str, int]:
    """``allocate_ranks`` for options at hand: their costs' sum stays within ``budget`` of all dense."""
    budget = _checks.real(budget, "budget", low=0.0, high=1.0, open_low=True)
    total = sum(int(costs[-1]) for costs, _ in options.values())
    choice = cheapest_choice(list(options.values()), math.floor(budget * total))
    if choice is None:
        least = sum(int(costs.min()) for costs, _ in options.values()) / total
        _checks.value_error("budget", budget, f"at least {least:.4g}, which the cheapest ranks cost")
    chosen = zip(options.items(), choice, strict=True)
    return {name: i + 1 for (name, (costs, _)), i in chosen if i < len(costs) - 1}


def allocate_ranks(
    model: nn.Module,
    budget: float,
    *,
    moments: Mapping[str, Moments] | None = None,
    cost: str = "params",
    pivoted: bool = False,
) -> dict[str, int]:
    r"""Ranks that lose least within a budget, over every ``nn.Linear``; a layer left out stays dense.

    Without moments a layer's loss at rank r is its share of energy, sum_{i > r} s_i^2 / sum_i s_i^2.
    With moments from ``calibrate`` the s_i are those of L^T W C^1/2, and a tail estimates
    what the loss of the whole model rises by, so tails of different layers can be added.

    Args:
        model: Any module.
        budget: Share of the linear layers' weights (or MACs) to keep, in (0, 1].
        moments: ``{layer: Moments}``; only these layers are then ranked, the others are left alone.
        cost: ``"params"``, or ``"macs"`` (needs moments, which know how many rows each layer sees).
        pivoted: Count r(m + n - r) numbers a layer, as ``PivotedLinear`` holds, instead of r(m + n).

    Returns:
        ``{dotted name: rank}`` for ``compress``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the budget does not even hold the cheapest ranks, or moments are missing.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        >>> sorted(allocate_ranks(net, budget=0.25))
        ['0', '2']
    """
    return ranks_within(layer_options(model, moments, cost=cost, pivoted=pivoted), budget)
