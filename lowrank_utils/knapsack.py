r"""The multiple-choice knapsack: one option of each group, the least total loss within a budget, exactly.

A Lagrange multiplier gives a bound and a solution that misses it by a small gap. An option whose own penalty
exceeds the gap cannot be part of an optimum, and the few left over are searched completely.

Reference:
    Sinha & Zoltners, "The multiple-choice knapsack problem", 1979; Everett 1963.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lowrank_utils import _checks

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
