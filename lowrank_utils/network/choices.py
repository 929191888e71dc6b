"""What each layer of a model can become: options of a cost and a loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowrank_utils.layers.conv_options import ConvOption
from lowrank_utils.layers.views import Pick


class Choices(NamedTuple):
    """What one layer can become, the dense layer last.

    Attributes:
        costs: Numbers, or multiply-adds a sample.
        losses: What each costs the model, none for the dense layer.
        picks: A rank, or a form and its rank.
    """

    costs: NDArray[np.int64]
    losses: NDArray[np.float64]
    picks: list[Pick]


def rank_options(
    shape: tuple[int, int], spectrum: NDArray[np.float64], *, rows: float = 1.0, pivoted: bool = False
) -> Choices:
    """Rank 1, 2, ..., dense of a layer (m, n): costs times ``rows``, tails of the spectrum."""
    m, n = shape
    r = np.arange(1, min(m, n) + 1)
    costs = r * (m + n - r) if pivoted else r * (m + n)
    tail = np.append(np.cumsum(spectrum[::-1] ** 2)[::-1], 0.0)[1:]  # tail[r - 1] = sum_{i > r}
    saves = costs < m * n
    costs, losses = np.append(costs[saves], m * n), np.append(tail[saves], 0.0)
    return Choices(np.ceil(costs * rows).astype(np.int64), losses, r[saves].tolist())


def pareto(
    costs: Sequence[float], losses: Sequence[float], picks: Sequence[Pick], *, dense: float
) -> Choices:
    """The options that no other beats in both cost and loss, by rising cost, and then the dense layer."""
    best, kept = np.inf, list[int]()
    for i in sorted(range(len(picks)), key=lambda i: (costs[i], losses[i])):
        if costs[i] < dense and losses[i] < best:
            best = losses[i]
            kept.append(i)
    return Choices(
        np.ceil([*(costs[i] for i in kept), dense]).astype(np.int64),
        np.array([*(losses[i] for i in kept), 0.0]),
        [picks[i] for i in kept],
    )


def form_options(params: int, forms: Sequence[ConvOption]) -> Choices:
    """Every form at every rank that no other beats in both numbers and energy, then dense."""
    losses = [o.error**2 for o in forms]
    return pareto([o.params for o in forms], losses, [(o.form, o.rank) for o in forms], dense=params)
