r"""The multiple-choice knapsack: one option of each group, the least total loss within a budget, exactly.

A Lagrange multiplier lambda gives a bound, and a solution that misses it by a gap. What a solution loses
above the bound is the sum of its options' excesses, loss + lambda cost - min(loss + lambda cost), and lambda
times the cost left unused. So whatever comes within a room g of the bound is found among the options with
excess <= g; g grows from almost nothing until there is something, whose best is then the best of all.

Reference:
    Sinha & Zoltners, "The multiple-choice knapsack problem", 1979; Pisinger 1995; Everett 1963.
"""

from __future__ import annotations

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
    scale = max(sum(float(losses.max()) for _, losses in layers), 1e-300)
    layers = [(costs, losses / scale) for costs, losses in layers]
    limit -= limit % max(1, int(np.gcd.reduce(np.concatenate([costs for costs, _ in layers]))))
    choice, multiplier = _relaxed(layers, limit)
    # every option's cost beyond the relaxed choice's, and its excess
    steps, unused, total, gap = list[Options](), limit, 0.0, 0.0
    for (costs, losses), i in zip(layers, choice, strict=True):
        penalty = losses + multiplier * costs
        steps.append((costs - costs[i], penalty - penalty.min()))
        unused, total, gap = unused - int(costs[i]), total + losses[i], gap + steps[-1][1][i]
    gap += multiplier * unused
    room, found = gap / 4096, None
    while found is None and room <= gap and gap > 1e-13 * total:
        found = _within(steps, unused, multiplier, room)
        room *= 2
    return found or choice  # at room = gap the relaxed choice itself is found, rounding aside


def _within(steps: Sequence[Options], unused: int, multiplier: float, room: float) -> list[int] | None:
    """The best choice that loses at most ``room`` above the bound, by dynamic programming over the layers."""
    near = [np.flatnonzero(excess <= room) for _, excess in steps]
    least = sum(int(cost[k].min()) for (cost, _), k in zip(steps, near, strict=True))
    most = sum(int(cost[k].max()) for (cost, _), k in zip(steps, near, strict=True))
    costs, excesses = np.zeros(1, np.int64), np.zeros(1)  # of the states: choices for the layers so far
    trail = []
    for (cost, excess), k in zip(steps, near, strict=True):
        least, most = least - int(cost[k].min()), most - int(cost[k].max())  # of the layers to come
        c, e = (costs[:, None] + cost[k]).ravel(), (excesses[:, None] + excess[k]).ravel()
        idle = np.maximum(unused - c - most, 0)  # what can no longer be used
        kept = np.flatnonzero((c + least <= unused) & (e + multiplier * idle <= room))
        if len(kept) == 0:
            return None
        kept = kept[np.lexsort((e[kept], c[kept]))]
        loss = e[kept] - multiplier * c[kept]
        kept = kept[np.append(True, loss[1:] < np.minimum.accumulate(loss)[:-1])]  # no dearer and no better
        costs, excesses = c[kept], e[kept]
        trail.append((kept // len(k), k[kept % len(k)]))
    choice, at = list[int](), int((excesses - multiplier * costs).argmin())
    for parents, options in reversed(trail):
        choice.append(int(options[at]))
        at = int(parents[at])
    return choice[::-1]


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
