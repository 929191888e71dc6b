"""The smallest network that keeps a metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.cost.size import count_params
from lowrank_utils.factors.moments import Moments
from lowrank_utils.layers.copying import copied
from lowrank_utils.layers.views import Pick
from lowrank_utils.model.batches import Loss, batches, is_samples
from lowrank_utils.model.metrics import Metric
from lowrank_utils.model.padding import Mask
from lowrank_utils.network.allocate import layer_options, ranks_within
from lowrank_utils.network.calibrate import calibrate
from lowrank_utils.network.cascade import cascade
from lowrank_utils.network.compress import compress
from lowrank_utils.network.decomposed import LayerFactors
from lowrank_utils.network.harm import Harm
from lowrank_utils.network.measure import measure_harm
from lowrank_utils.network.report import Report, layer_reporter
from lowrank_utils.network.residual import connections
from lowrank_utils.search.find_rank import score, within


def compress_within(
    model: nn.Module,
    X_val: Any = None,
    y_val: Any = None,
    *,
    max_drop: float = 0.01,
    metric: str | Metric = "accuracy",
    calibration: Any = None,
    refit: bool = True,
    stretch: float | None = 1.0,
    pivoted: bool = False,
    steps: int = 12,
    loss: Loss | None = None,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
    harm: Harm | str | None = None,
    mask: Mask | None = None,
    residual: Mapping[str, str] | None = None,
    norm: float = 1.0,
) -> tuple[nn.Module, Report]:
    r"""The smallest network found with phi(model) - phi(smaller) <= max_drop on the validation data.

    Ranks are allocated (``allocate_ranks``) for ``steps`` budgets from the least possible to all, evenly on
    a log scale, then for ``steps`` more between the smallest feasible one, or all, and the next below. There
    is no gradient step. Without a refit batch norms are brought back on the calibration data. For moments
    and factors it takes 8 (n^2 + m^2 + (m + n) min(m, n)) bytes a layer and a copy of its weight; beside them
    stand the smaller models that keep the metric, up to 2 ``steps``, and what ``cascade`` takes.

    Args:
        model: Any module; it is not changed.
        X_val: Samples that the metric is taken on, or batches, as in ``accuracy``; report the result on
            other, test, data. None, if the metric is a callable(model).
        y_val: Their labels.
        max_drop: Largest drop of the metric, absolute, >= 0.
        metric: ``"accuracy"``, ``"auc"``, a callable(model, X, y), larger being better, or without X_val a
            callable(model).
        calibration: For the moments: ``(X, y)``, best the training data, or batches, as in ``calibrate``; by
            default the validation data. Without any data ranks go by the weights' energy, and no layer is
            refitted.
        refit: Fit each layer to what the ones before it became (``cascade``), which keeps more.
        stretch: How far a refit may stretch a weight (``cascade``). At 1 you can train on what is returned at
            rates that a plain truncation bears too; None gives smaller networks, for when you will not train.
        pivoted: Store r(m + n - r) numbers a layer (``PivotedLinear``), but for convolutions and embeddings.
        steps: Budgets tried in each of the two rounds.
        loss: A callable(outputs, batch) -> scalar for the moments, where the labels are no classes.
        layers: Names of the layers that take part; by default all that can.
        skip: Names of those that do not.
        harm: From ``measure_harm``, or ``"measured"`` to measure it here, on at most 256 validation samples,
            which the moments of other calibration data have not seen; without X_val, of the calibration's:
            forms and ranks are then chosen by it. Of one that was measured without moments, and without a
            refit, no moments are taken.
        mask: A callable(inputs) -> (N, T), as in ``calibrate``: which positions of a batch count.
        residual: Of layers before a sum, which module reads what they are added to, for the refit:
            ``residual_connections``.
        norm: As in ``allocate_ranks``, which says where 2 is worth a try.

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
    model = _checks.module(model)
    max_drop = _checks.real(max_drop, "max_drop", low=0.0)
    steps = _checks.integer(steps, "steps", low=2)
    norm = _checks.real(norm, "norm", low=1.0, high=16.0)
    residual = connections(model, residual)
    given = isinstance(calibration, tuple) and len(calibration) == 2
    X, y = calibration if given else (calibration, None)
    if calibration is None:
        X, y = X_val, y_val
    same = X is X_val
    if X_val is not None and not is_samples(X_val):
        X_val = list(X_val)  # it is run through several times
    X = X_val if same else X if X is None or is_samples(X) else list(X)
    baseline = score(model, X_val, y_val, metric)
    by_weights = isinstance(harm, Harm) and not harm.by_data
    moments = None
    if X is not None and (refit or not by_weights):
        moments = calibrate(model, X, y, loss=loss, mask=mask, layers=layers, skip=skip)
    factors = LayerFactors(model, moments)
    if harm is not None:
        unseen = X if same or X_val is None else X_val  # by the moments
        harm = _measured(harm, model, unseen, moments, factors, layers, skip)
    options = layer_options(
        model, moments, factors=factors, pivoted=pivoted, layers=layers, skip=skip, harm=harm
    )
    dense = sum(int(choices.costs[-1]) for choices in options.values())
    least = sum(int(choices.costs.min()) for choices in options.values()) / dense
    before = count_params(model)
    frontier: dict[int, tuple[float, dict[str, Pick]]] = {}
    fitting: dict[int, tuple[float, nn.Module]] = {}  # by size: budget and model

    def attempt(budget: float) -> None:
        ranks = ranks_within(options, min(1.0, budget), norm)
        if not ranks or any(ranks == tried for _, tried in frontier.values()):
            return
        if refit and moments is not None:
            small = cascade(
                model,
                ranks,
                X,
                moments,
                factors=factors,
                pivoted=pivoted,
                stretch=stretch,
                mask=mask,
                residual=residual,
            )
        else:
            small = compress(model, ranks, factors=factors, pivoted=pivoted, calibration=X)
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
        best = fitting[min(fitting)][0] if fitting else 1.0
        below = max((b for b in coarse if b < best), default=least)
        for budget in np.geomspace(max(below, least * (1 + 1e-9)), best, steps + 2)[1:-1]:
            attempt(float(budget))
            bar.update()
    small = fitting[min(fitting)][1] if fitting else copied(model)
    rows = layer_reporter(model, moments, options, factors, harm)
    value, ranks = frontier[min(fitting)] if fitting else (baseline, {})
    frontier = dict(sorted(frontier.items()))
    tried = {params: rows(ranks) for params, (_, ranks) in frontier.items()}
    sizes = before, count_params(small)
    return small, Report(rows(ranks), baseline, value, max_drop, sizes, frontier, tried, bool(fitting))


def _measured(
    harm: Harm | str,
    model: nn.Module,
    X: Any,
    moments: Mapping[str, Moments] | None,
    factors: LayerFactors,
    layers: Collection[str] | None,
    skip: Collection[str],
) -> Harm:
    """The harm given, or measured on the first samples of X."""
    if isinstance(harm, Harm):
        if harm.by_data and moments is None:
            _checks.value_error("calibration", None, "given for a harm that was measured with moments")
        return harm
    if harm != "measured":
        _checks.value_error("harm", harm, "a Harm, 'measured' or None")
    if X is None:
        _checks.value_error("calibration", None, "given for harm='measured'")
    first = next(batch.inputs for batch in batches(X, size=256) if len(batch))
    few = first if is_samples(first) else [first]
    known = None if moments is None else factors
    return measure_harm(model, few, moments=moments, factors=known, layers=layers, skip=skip)
