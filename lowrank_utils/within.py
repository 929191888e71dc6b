"""The smallest network that keeps a metric, and the report that says what became of each layer."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.allocate import layer_options, ranks_within
from lowrank_utils.calibrate import Moments, calibrate
from lowrank_utils.cascade import cascade
from lowrank_utils.compress import compress
from lowrank_utils.cost import count_params
from lowrank_utils.data_aware import weighted_factors
from lowrank_utils.knapsack import Options
from lowrank_utils.search import score, within
from lowrank_utils.training import Metric


@dataclass(frozen=True)
class LayerReport:
    """One linear layer (m, n): its rank, or None if dense; weights; MACs a sample; error.

    The error is that of L^T W C^1/2, relative, before any refit: what the allocation reckoned with.
    """

    layer: str
    shape: tuple[int, int]
    rank: int | None
    params: int
    macs: int
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
        feasible: Whether a smaller network kept the metric; if not, the model returned is a copy.
    """

    layers: tuple[LayerReport, ...]
    baseline: float
    score: float
    max_drop: float
    params: tuple[int, int]
    frontier: dict[int, tuple[float, dict[str, int]]]
    feasible: bool

    def __str__(self) -> str:
        width = max(5, *(len(row.layer) for row in self.layers))
        head = f"{'layer':<{width}} {'shape':>12} {'rank':>6} {'params':>10} {'MACs':>12} {'error':>7}"
        lines = [head] + [
            f"{row.layer:<{width}} {'{} x {}'.format(*row.shape):>12} {row.rank or 'dense':>6} "
            f"{row.params:>10,} {row.macs:>12,} {row.error:>7.1%}"
            for row in self.layers
        ]
        before, after = self.params
        what = f"{before:,} -> {after:,} parameters ({after / before:.1%})"
        if not self.feasible:
            what = f"nothing smaller keeps the metric within {self.max_drop:g}; the model is unchanged"
        return "\n".join([*lines, f"{what}; score {self.baseline:.4f} -> {self.score:.4f}"])


def compress_within(
    model: nn.Module,
    X_val: Tensor,
    y_val: Tensor,
    *,
    max_drop: float = 0.01,
    metric: str | Metric = "accuracy",
    calibration: tuple[Tensor, Tensor] | None = None,
    refit: bool = True,
    pivoted: bool = False,
    steps: int = 12,
) -> tuple[nn.Module, Report]:
    r"""The smallest network found with phi(model) - phi(smaller) <= max_drop on the validation data.

    Ranks are allocated (``allocate_ranks``) for ``steps`` budgets from the least possible to all, evenly on
    a log scale, then for ``steps`` more between the smallest feasible one and the next below. There is no
    gradient step.

    Args:
        model: Any module; it is not changed.
        X_val: Samples that the metric is taken on; report the result on other, test, data.
        y_val: Their labels.
        max_drop: Largest drop of the metric, absolute, >= 0.
        metric: ``"accuracy"``, ``"auc"`` or a callable(model, X, y), larger being better.
        calibration: ``(X, y)`` for the moments, best the training data; by default the validation data.
        refit: Fit each layer to what the ones before it became (``cascade``), which keeps more.
        pivoted: Store r(m + n - r) numbers a layer (``PivotedLinear``).
        steps: Budgets tried in each of the two rounds.

    Returns:
        The new model and a ``Report``, which prints as a table.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, the data do not fit or the metric gives nan.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 4, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.diag(torch.tensor([9.0, 0.0, 0.0, 0.0])))
        >>> X, y = torch.eye(4), torch.tensor([0, 0, 0, 0])
        >>> small, report = compress_within(net, X, y, max_drop=0.0)
        >>> report.layers[0].rank
        1
    """
    _checks.module(model)
    _checks.labelled(X_val, y_val)
    max_drop = _checks.real(max_drop, "max_drop", low=0.0)
    steps = _checks.integer(steps, "steps", low=2)
    X, y = (X_val, y_val) if calibration is None else calibration
    baseline = score(model, X_val, y_val, metric)
    moments = calibrate(model, X, y)
    options = layer_options(model, moments, pivoted=pivoted)
    dense = sum(int(costs[-1]) for costs, _ in options.values())
    least = sum(int(costs.min()) for costs, _ in options.values()) / dense
    before = count_params(model)
    frontier: dict[int, tuple[float, dict[str, int]]] = {}
    fitting: dict[int, tuple[float, nn.Module]] = {}  # by size: budget and model

    def attempt(budget: float) -> None:
        ranks = ranks_within(options, min(1.0, budget))
        if not ranks or any(ranks == tried for _, tried in frontier.values()):
            return
        if refit:
            small = cascade(model, ranks, X, moments, pivoted=pivoted)
        else:
            small = compress(model, ranks, moments=moments, pivoted=pivoted)
        params, value = count_params(small), score(small, X_val, y_val, metric)
        if params in frontier and frontier[params][0] >= value:
            return
        frontier[params] = value, ranks
        if within(baseline, value, max_drop) and params < before:
            fitting[params] = budget, small

    coarse = np.geomspace(least * (1 + 1e-9), 1.0, steps)
    bar = tqdm(total=2 * steps, desc="compress", unit="net", leave=False, delay=1.0)
    with bar:
        for budget in coarse:
            attempt(float(budget))
            bar.update()
        if fitting:
            best = fitting[min(fitting)][0]
            below = max((b for b in coarse if b < best), default=least)
            for budget in np.geomspace(max(below, least * (1 + 1e-9)), best, steps + 2)[1:-1]:
                attempt(float(budget))
                bar.update()
    small = fitting[min(fitting)][1] if fitting else copy.deepcopy(model)
    ranks = frontier[min(fitting)][1] if fitting else {}
    rows = tuple(_row(name, model, ranks.get(name), moments[name], options[name]) for name in options)
    value = frontier[min(fitting)][0] if fitting else baseline
    sizes = before, count_params(small)
    return small, Report(
        rows, baseline, value, max_drop, sizes, dict(sorted(frontier.items())), bool(fitting)
    )


def _row(name: str, model: nn.Module, rank: int | None, seen: Moments, options: Options) -> LayerReport:
    W = _checks.linear_layer(model, name).weight
    costs, _ = options
    cost = int(costs[-1] if rank is None else costs[rank - 1])
    energy = weighted_factors(W, seen).S.square()
    tail = float(energy[rank:].sum() / energy.sum()) if rank is not None and energy.any() else 0.0
    macs = round(cost * seen.rows / seen.samples)
    return LayerReport(name, (W.shape[0], W.shape[1]), rank, cost, macs, tail**0.5)
