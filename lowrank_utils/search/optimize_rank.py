"""The class that the original notebook calls, on top of ``find_rank``."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lowrank_utils import _checks
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.layers.views import layer_view
from lowrank_utils.layers.which import layer_of, layers_of
from lowrank_utils.model.metrics import Metric
from lowrank_utils.search.find_rank import RankSearch, find_rank


class OptimizeRank:
    r"""Search the smallest rank r with phi - phi_r <= delta, for r up to break-even with a core.

    Each search prints ``Max rank: N`` and returns ``(optimal_rank, accuracy_diff, space_saved)``:
    the rank or None, phi - phi_r at that rank (nan if None), and the share of the layer's weights
    that factors with an r x r core save, 1 - (r^2 + r(m + n)) / mn (0 if None).

    Args:
        X: Samples.
        model: Any module; it is never changed.
        y: Labels.
        delta: Largest drop of the metric, absolute.
        metric: ``"accuracy"``, ``"auc"`` or a callable(model, X, y).
        layer: Dotted name of the layer; by default the first ``nn.Linear`` that can be given a rank.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no such ``nn.Linear`` and no layer is named, or as in ``find_rank``.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 6, bias=False))
        >>> _ = nn.init.eye_(net[0].weight)
        >>> net[0].weight.data[0] = torch.tensor([2.0, 0.5])
        >>> X, y = torch.eye(2), torch.tensor([0, 1])
        >>> OptimizeRank(X, net, y, delta=0.5).optimize_rank_binary_search()
        Max rank: 1
        (1, 0.5, 0.25)
    """

    def __init__(
        self,
        X: Tensor,
        model: nn.Module,
        y: Tensor,
        delta: float = 0.1,
        *,
        metric: str | Metric = "accuracy",
        layer: str | None = None,
    ) -> None:
        model = _checks.module(model)
        _checks.labelled(X, y)
        if layer is None:
            linears = (k for k in layers_of(model) if isinstance(model.get_submodule(k), nn.Linear))
            layer = next(linears, None)
        if layer is None:
            _checks.value_error("model", model, "a module with an nn.Linear in it")
        self.X, self.y, self.model, self.metric = X, y, model, metric
        self.layer = layer
        self.delta = _checks.real(delta, "delta", low=0.0)
        m, n = layer_view(layer_of(model, layer)).weight.shape
        self._shape = (m, n)
        self.max_rank = break_even_rank(m, n, core=True)

    def optimize_rank_binary_search(self) -> tuple[int | None, float, float]:
        """Bisect: few scores, a feasible rank, not always the smallest.

        Returns:
            The rank or None, the drop phi - phi_r at it (nan if None), and the share saved (0 if None).
        """
        return self._search("binary")

    def optimize_rank_brute_force(self) -> tuple[int | None, float, float]:
        """Score every rank: the smallest feasible one.

        Returns:
            The rank or None, the drop phi - phi_r at it (nan if None), and the share saved (0 if None).
        """
        return self._search("scan")

    def _search(self, method: str) -> tuple[int | None, float, float]:
        print(f"Max rank: {self.max_rank}")
        if self.max_rank == 0:
            return None, math.nan, 0.0
        found: RankSearch = find_rank(
            self.model, self.layer, self.X, self.y,
            max_drop=self.delta, metric=self.metric, max_rank=self.max_rank, method=method,
        )  # fmt: skip
        if found.rank is None:
            return None, math.nan, 0.0
        (m, n), r = self._shape, found.rank
        return r, found.baseline - found.curve[r], 1 - (r * r + r * (m + n)) / (m * n)
