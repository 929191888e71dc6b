r"""The ridge of a refit, chosen on rows that it was not fitted to: two halves of the data judge each other.

Of a weight W fitted on one half, with its bias b, the other half's sums tell the error without its rows:
E||y - W x - b||^2 = tr Cov(y) - 2 <W, Cov(y, x)> + <W C, W> + ||E[y] - W E[x] - b||^2, C = Cov(x).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from lowrank_utils.network.refit import Joint

RIDGES = (10.0, 1.0, 0.1, 1e-2, 1e-3)


def best_ridge(halves: Sequence[Joint], W: Tensor, layer: int = 0) -> float:
    """The ridge of ``RIDGES`` of least error on unfitted halves; the highest where none can judge.

    Args:
        halves: Moments of two halves of the rows.
        W: The weight (m, n) towards which a refit is pulled.
        layer: Which of the layers that share their inputs.
    """
    return min(RIDGES, key=lambda ridge: _unseen(halves, W, ridge, layer))


def _unseen(halves: Sequence[Joint], W: Tensor, ridge: float, layer: int) -> float:
    """The mean error on rows that were not fitted, less tr Cov(y), which no ridge changes."""
    errors = 0.0
    for fitted, judge in itertools.permutations(halves):
        if fitted.rows and judge.rows:
            new = fitted.refitted(W, ridge, layer)
            errors += judge.rows * _error(judge, new, fitted.bias(new, layer), layer)
    return errors


def _error(judge: Joint, W: Tensor, b: Tensor, layer: int) -> float:
    """E||y - W x - b||^2 - tr Cov(y)."""
    off = judge.bias(W, layer) - b
    return float(((W @ judge.covariance - 2 * judge.cross[layer]) * W).sum() + off.square().sum())
