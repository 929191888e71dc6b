"""The smallest rank of one layer that keeps a metric, and the curve that shows it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.factors.ranks import break_even_rank
from lowrank_utils.layers.copying import copied
from lowrank_utils.model.batches import batches
from lowrank_utils.model.metrics import Metric, accuracy_of, auc_of, joined, scored
from lowrank_utils.search.nested import NestedLayer

_OF_LOGITS: dict[str, Callable[[Tensor, Tensor], float]] = {"accuracy": accuracy_of, "auc": auc_of}


@dataclass(frozen=True)
class RankSearch:
    """What ``find_rank`` found.

    Attributes:
        layer: Dotted name of the layer.
        rank: Smallest feasible rank that was tried, or None.
        safe_rank: Smallest rank from which on every rank up to ``max_rank`` is feasible, or None;
            always None for ``method="binary"``, which does not try them all.
        baseline: Score of the model as it was given.
        curve: Score at each rank that was tried, {rank: score}, by rising rank.
        max_drop: The drop allowed.
        max_rank: The largest rank tried.
    """

    layer: str
    rank: int | None
    safe_rank: int | None
    baseline: float
    curve: dict[int, float]
    max_drop: float
    max_rank: int

    @property
    def feasible(self) -> bool:
        """Whether any rank that was tried keeps the metric."""
        return self.rank is not None

    def __str__(self) -> str:
        what = f"{self.layer}: baseline {self.baseline:.4f}, drop of at most {self.max_drop:g}"
        if self.max_rank == 0:
            return f"{what}: no rank saves anything in this layer"
        if self.rank is None:
            return f"{what}: no rank from 1 to {self.max_rank} is feasible"
        last = self.curve.get(self.max_rank, math.inf)
        none = "not known" if within(self.baseline, last, self.max_drop) else "none"
        safe = none if self.safe_rank is None else self.safe_rank
        score = self.curve[self.rank]
        return f"{what}: rank {self.rank} of {self.max_rank} scores {score:.4f}; safe rank {safe}"


def within(baseline: float, score: float, max_drop: float) -> bool:
    """Whether baseline - score <= max_drop, but for the rounding of the subtraction; inf is no rounding."""
    if score >= baseline:
        return True
    rounding = 4 * sys.float_info.epsilon * max(abs(baseline), abs(score), 1.0)
    drop = baseline - score
    return math.isfinite(drop) and drop <= max_drop + rounding


def _scored(value: object, where: str) -> float:
    number = _checks.number(value, f"metric's value {where}")
    if math.isnan(number):
        raise ValueError(f"metric's value {where} is nan; it must be a number, larger being better")
    return number


@torch.no_grad()
def score(model: nn.Module, X: Any, y: Any, metric: str | Metric = "accuracy") -> float:
    """The metric's value for the model, as ``find_rank`` takes it; never nan."""
    if callable(metric):
        return _scored(on_data(metric, X, y)(copied(_checks.module(model)).eval()), "of the model")
    return _scored(_OF_LOGITS[named(metric, X, y)](*scored(model, X, y)), "of the model")


def on_data(metric: Metric, X: Any, y: Any) -> Callable[[nn.Module], object]:
    """A callable metric as a function of the model alone."""
    return metric if X is None else lambda model: metric(model, X, y)


def named(metric: str | Metric, X: Any, y: Any) -> str:
    """The name of a metric of logits, which needs labelled samples."""
    name = _checks.choice(metric, "metric", _OF_LOGITS)
    if X is None:
        _checks.value_error("X", None, f"given for metric={name!r}; a callable(model) needs none")
    if isinstance(X, Tensor):
        _checks.labelled(X, y)
    return name


@torch.no_grad()
def find_rank(
    model: nn.Module,
    layer: str,
    X: Any = None,
    y: Any = None,
    *,
    max_drop: float,
    metric: str | Metric = "accuracy",
    max_rank: int | None = None,
    method: str = "scan",
) -> RankSearch:
    r"""Smallest rank r of one layer with phi(model) - phi(model at r) <= max_drop.

    The model is copied and scored in eval mode; the one given is never touched. ``"scan"`` scores every
    rank from one SVD. ``"binary"`` bisects, in about log2(max_rank) scores: it returns a feasible rank or
    None, but not always the smallest, since a score need not rise with the rank. It takes two copies of the
    model, about 50 m n bytes for the SVD, and, where X is one batch, its activations before the layer.

    Args:
        model: Any module.
        layer: Dotted name of a layer in it that is a matrix applied to rows: ``nn.Linear``, a convolution.
        X: Samples, or batches, as in ``accuracy``; validation data, if you mean to report the score on test
            data. None, if the metric needs none.
        y: Labels.
        max_drop: Largest drop phi may take, absolute (0.01 is one point of accuracy), >= 0.
        metric: ``"accuracy"``, ``"auc"``, a callable(model, X, y) -> number, larger being better, or
            without X a callable(model).
        max_rank: Largest rank to try; by default ``break_even_rank(m, n)``.
        method: ``"scan"`` or ``"binary"``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the layer does not exist, cannot be replaced or is never called; X is
            empty or y does not match; the metric gives nan; a number is out of range.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.diag(torch.tensor([2.0, 1.0])))
        >>> X, y = torch.eye(2), torch.tensor([0, 1])
        >>> find_rank(net, "0", X, y, max_drop=0.0, max_rank=2).curve
        {1: 0.5, 2: 1.0}
    """
    model = _checks.module(model)
    nested = NestedLayer(model, layer)
    if isinstance(X, Tensor) and not callable(metric):
        _checks.labelled(X, y)
    max_drop = _checks.real(max_drop, "max_drop", low=0.0)
    m, n = _checks.matrix(nested.view.weight, f"{layer}.weight").shape
    max_rank = break_even_rank(m, n) if max_rank is None else _checks.rank(max_rank, m, n, "max_rank")
    _checks.choice(method, "method", ("scan", "binary"))

    at_rank: Callable[[int], object]  # score of the model with this rank
    if callable(metric):
        if isinstance(X, Iterator):
            X = list(X)  # every rank runs through it
        call = on_data(metric, X, y)
        baseline = _scored(nested.check_called(call), "of the full model")

        def at_rank(rank: int) -> object:
            return call(nested.at(rank))
    else:
        of_logits = _OF_LOGITS[named(metric, X, y)]
        data = [batch.on(model) for batch in batches(X, y)]
        outputs = nested.outputs([batch.inputs for batch in data])
        labels = [batch.labels for batch in data]

        def at_rank(rank: int | None) -> object:
            return of_logits(*joined(list(zip(outputs.at(rank), labels, strict=True))))

        baseline = _scored(at_rank(None), "of the full model")

    curve: dict[int, float] = {}

    def feasible(rank: int) -> bool:
        curve[rank] = _scored(at_rank(rank), f"at rank {rank}")
        return within(baseline, curve[rank], max_drop)

    if method == "scan":
        ranks = tqdm(range(1, max_rank + 1), desc=f"ranks of {layer}", leave=False, delay=1.0)
        fits = [rank for rank in ranks if feasible(rank)]
        infeasible = [rank for rank in curve if rank not in set(fits)]
        safe = max(infeasible, default=0) + 1
        safe_rank = safe if safe <= max_rank else None
        return RankSearch(layer, min(fits, default=None), safe_rank, baseline, curve, max_drop, max_rank)

    low, best = 1, None  # bisection over [low, high]; best is feasible, or None
    high = max_rank
    while low <= high:
        middle = high if best is None else (low + high) // 2  # the largest rank first
        if feasible(middle):
            best, high = middle, middle - 1
        elif best is None:
            break
        else:
            low = middle + 1
    return RankSearch(layer, best, None, baseline, dict(sorted(curve.items())), max_drop, max_rank)
