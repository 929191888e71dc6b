"""Measure the harm of each layer's cut: one layer at a time, on unlabelled samples, in parallel if wished."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from joblib import delayed  # type: ignore[import-untyped]
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.cost.macs import generators_kept
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.svd import singular_values
from lowrank_utils.factors.unfold import Rank
from lowrank_utils.factors.weighted import WeightedFactors, weighted_factors
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.views import LayerView, layer_view
from lowrank_utils.layers.which import find_view, measured_of, some_layers_of
from lowrank_utils.model.batches import batches
from lowrank_utils.network.decomposed import LayerFactors, checked, cut
from lowrank_utils.network.harm import Harm, HarmCurve, LayerHarm
from lowrank_utils.search.nested import NestedLayer, NestedOutputs
from lowrank_utils.search.parallel import default_dtype, in_parallel

Measure = Callable[[Any, Any], Any]
"""A callable(outputs, dense outputs) -> number: the mean over the samples of a batch."""


def squared_change(outputs: Tensor, dense: Tensor) -> float:
    """Mean over samples of ||f'(x) - f(x)||^2."""
    wide = torch.complex128 if dense.is_complex() else torch.float64
    return float((outputs.to(wide) - dense.to(wide)).abs().square().sum()) / len(dense)


def kl_divergence(outputs: Tensor, dense: Tensor) -> float:
    """Mean over samples of KL(softmax f(x) || softmax f'(x)), of logits (N, ..., C)."""
    p, q = dense.double().log_softmax(-1), outputs.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum().detach()) / len(dense)


MEASURES: dict[str, Measure] = {"squared": squared_change, "kl": kl_divergence}


def measure_harm(
    model: nn.Module,
    X: Any,
    *,
    moments: Mapping[str, Moments] | None = None,
    factors: Mapping[str, WeightedFactors] | None = None,
    measure: str | Measure = "squared",
    points: int | None = 6,
    layers: Collection[str] | None = None,
    skip: Collection[str] = (),
    n_jobs: int | None = None,
) -> Harm:
    r"""The harm that each layer, cut alone, does to the model's outputs, at every form and rank.

    Each layer takes about ``points`` runs a form, from the layer on where X is one batch and that gives the
    same. Every measurement runs on one thread, and from the state of torch's generator at the call, so that
    the numbers do not depend on ``n_jobs`` and what a model draws is not taken for harm. Each process takes
    two copies of the model, about 80 m n bytes for the layer at hand, and the outputs for X.

    Args:
        model: Any module that returns a tensor, or that first of all; it is not changed.
        X: Samples without labels, as in ``calibrate``: a few hundred, and with ``moments`` others than
            those that they were taken on, which a cut by them serves too well. A tensor, tuple or mapping is
            one batch, and its activations are held in memory.
        moments: From ``calibrate``: the product A B is then made of ``weighted_factors``, as ``compress``
            makes it; a convolution's other forms are of its weights alone.
        factors: ``{layer: weighted_factors(W, moments)}``, where they are at hand, beside the moments.
        measure: ``"squared"``, the mean of ||f'(x) - f(x)||^2; ``"kl"``, of KL(softmax f || softmax f'),
            for logits; or a callable(outputs, dense outputs) -> number, the mean over a batch.
        points: Ranks measured a form, evenly on a log scale; None for every rank.
        layers: Names of the layers that take part; by default all that can.
        skip: Names of those that do not.
        n_jobs: Processes, as in ``joblib.Parallel``; None for what ``joblib.parallel_config`` says, else one.

    Returns:
        A ``Harm``, for ``allocate_ranks(model, budget, harm=...)``.

    Raises:
        TypeError: If an argument is of the wrong type, or the measure gives no number.
        ValueError: If there are no samples or no layer, a layer is never called, a number is out of range, or
            the measure gives nan or a negative number, moments or factors are missing, or the factors are of
            another weight.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0])))
        >>> measure_harm(net, torch.eye(4)).layers["0"].curves[0].harms()
        array([0.25])
    """
    named = measure if isinstance(measure, str) else getattr(measure, "__name__", "measure")
    how = measure if callable(measure) else MEASURES[_checks.choice(measure, "measure", MEASURES)]
    points = None if points is None else _checks.integer(points, "points", low=2)
    model = _checks.module(model)
    if factors is not None and moments is None:
        _checks.value_error("moments", moments, "given with factors")
    views = measured_of(some_layers_of(model, layers=layers, skip=skip), moments, "moments")
    if factors is not None and not isinstance(factors, LayerFactors):  # those are decomposed one by one
        for name, view in views.items():
            checked(factors, name, view)
    told: Mapping[str, Moments | WeightedFactors] | None = moments if factors is None else factors
    data = [batch.on(model) for batch in batches(X)]
    samples = sum(map(len, data))
    if samples == 0:
        _checks.no_samples()
    inputs, sizes = [batch.inputs for batch in data], [len(batch) for batch in data]

    average = functools.partial(_average, how, sizes)
    own = torch.get_default_dtype(), torch.get_rng_state()  # what a process has of its own
    jobs = (
        delayed(_as_here)(
            *own, type(view), model, name, inputs, average, points, None if told is None else told[name]
        )
        for name, view in views.items()
    )
    found, runs = {}, 0
    results = in_parallel(jobs, n_jobs)
    with tqdm(views, desc="harm", unit="layer", leave=False, delay=1.0) as bar:
        for name, (layer, took) in zip(bar, results, strict=True):
            bar.set_postfix_str(f"{name}, {took} runs")
            found[name], runs = layer, runs + took
    return Harm(found, named, samples, runs, moments is not None)


def _average(
    how: Measure, sizes: Sequence[int], outputs: Sequence[Any], dense: Sequence[Any], where: str
) -> float:
    """The mean over all samples, of batches of these sizes."""
    total = 0.0
    for n, after, before in zip(sizes, outputs, dense, strict=True):
        told = how(after, before)
        value = _checks.number(told, "measure(outputs, dense)", f"a number >= 0 {where}")
        if not value >= 0:
            _checks.value_error("measure(outputs, dense)", value, f"a number >= 0 {where}")
        total += n * value
    return total / sum(sizes)


@plainly()  # one at a time in a process, whose threads share all that is set here
def _as_here(
    dtype: torch.dtype,
    state: Tensor,
    kind: type[LayerView],
    model: nn.Module,
    name: str,
    *told: Any,
) -> tuple[LayerHarm, int]:
    """As the caller's process measures it: its default dtype, random numbers, and view of the layer."""
    layer = model.get_submodule(name)
    if type(find_view(layer)) is not kind:  # registered in a notebook, say
        layer_view.register(type(layer), kind)
    with default_dtype(dtype), generators_kept():
        torch.set_rng_state(state)
        return _measured(model, name, *told)


@torch.no_grad()
def _measured(
    model: nn.Module,
    name: str,
    inputs: Sequence[Any],
    average: Callable[[Sequence[Any], Sequence[Any], str], float],
    points: int | None,
    seen: Moments | WeightedFactors | None,
) -> tuple[LayerHarm, int]:
    """One layer's curves, and how many runs they took."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        nested = NestedLayer(model, name)
        outputs = nested.outputs(inputs)
        m, n = nested.view.weight.shape
        curves, runs = [], outputs.runs
        for curve, layer_at in _candidates(nested.view, nested, outputs, seen):
            k = len(curve.ranks)
            at = range(k) if points is None else np.unique(np.geomspace(1, k, points).round().astype(int) - 1)
            for i in map(int, at):
                where = f"with {name!r} as {curve.form or 'A B'} of rank {curve.ranks[i]}"
                curve.measured[i] = average(layer_at(curve.ranks[i]), outputs.at(None), where)
            runs += len(at)
            curves.append(curve)
    finally:
        torch.set_num_threads(threads)
    return LayerHarm((m, n), tuple(curves)), runs


def _candidates(
    view: LayerView, nested: NestedLayer, outputs: NestedOutputs, seen: Moments | WeightedFactors | None
) -> Iterator[tuple[HarmCurve, Callable[[Any], list[Any]]]]:
    """Each form that saves numbers at any rank, not yet measured, and the model's outputs at a rank of it."""
    W = view.weight
    m, n = W.shape
    forms = view.forms()
    ranks = range(1, (m * n - 1) // (m + n) + 1)  # those that save numbers
    if len(ranks) and (seen is not None or not forms):
        factors = weighted_factors(W, seen) if isinstance(seen, Moments) else seen
        S = singular_values(W) if factors is None else factors.S
        tails = S.double().square().cpu().numpy()[::-1].cumsum()[::-1][1:]  # of rank 1, 2, ...
        params = tuple(r * (m + n) for r in ranks)
        curve = HarmCurve("", tuple(ranks), params, params, tuple(tails[: len(ranks)].tolist()), {})
        yield curve, outputs.at if factors is None else functools.partial(_product, view, outputs, factors)
    for form in dict.fromkeys(option.form for option in forms):
        own = [o for o in forms if o.form == form]
        curve = HarmCurve(
            form,
            tuple(o.rank for o in own),
            tuple(o.params for o in own),
            tuple(o.macs for o in own),
            tuple(o.error**2 for o in own),
            {},
        )
        yield curve, functools.partial(_in_form, view, outputs, form)


def _product(view: LayerView, outputs: NestedOutputs, factors: WeightedFactors, rank: int) -> list[Any]:
    return outputs.with_layer(cut(view, factors, rank, view.bias))


def _in_form(view: LayerView, outputs: NestedOutputs, form: str, rank: Rank) -> list[Any]:
    return outputs.with_layer(view.in_form(form, rank))
