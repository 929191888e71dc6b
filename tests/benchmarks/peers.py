"""What we are measured against, written as its users write it."""

from __future__ import annotations

import copy

import tensorly
import torch
from tensorly.decomposition import tucker
from torch import Tensor, nn

from lowrank_utils import compress


def tucker_score(net: nn.Module, X: Tensor, y: Tensor, rank: int) -> float:
    """The original notebook's way: Tucker of the weight, the product put back, the net scored."""
    trial = copy.deepcopy(net)
    with torch.no_grad(), tensorly.backend_context("pytorch"):
        core, factors = tucker(trial[0].weight, rank=[rank, rank])  # type: ignore[index]
        trial[0].weight.copy_(factors[0] @ core @ factors[1].T)  # type: ignore[index]
        return float((trial(X).argmax(1) == y).float().mean())


def uniform_svd(net: nn.Module, budget: float, *, dense_head: bool = False) -> nn.Module:
    """Truncated SVD with the same share of weights in every layer, at least rank 1.

    With ``dense_head`` the last layer stays as it is, and the others share what it leaves of the budget.
    """
    shapes = {name: m.weight.shape for name, m in net.named_modules() if isinstance(m, nn.Linear)}
    sizes = {name: m * n for name, (m, n) in shapes.items()}
    left = budget * sum(sizes.values())
    if dense_head:
        head = next(reversed(shapes))
        shapes.pop(head)
        left -= sizes.pop(head)
    share = left / sum(sizes.values())
    return compress(net, {name: max(1, int(share * m * n / (m + n))) for name, (m, n) in shapes.items()})


def one_rank(net: nn.Module, budget: float, *, pivoted: bool = False) -> tuple[dict[str, int], float]:
    """The largest rank that all linear layers can have within a budget, and the share that it takes.

    A layer of which it would save nothing stays as it is.
    """
    shapes = {name: m.weight.shape for name, m in net.named_modules() if isinstance(m, nn.Linear)}

    def weights(m: int, n: int, r: int) -> int:
        return min(r * (m + n - r if pivoted else m + n), m * n)

    most = max(min(m, n) for m, n in shapes.values())
    total = sum(m * n for m, n in shapes.values())
    shares = {r: sum(weights(m, n, r) for m, n in shapes.values()) / total for r in range(1, most + 1)}
    r = max((r for r, share in shares.items() if share <= budget), default=1)
    return {name: r for name, (m, n) in shapes.items() if weights(m, n, r) < m * n}, shares[r]
