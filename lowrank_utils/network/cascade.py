r"""Layer after layer: each is fitted to the inputs that the compressed layers before it really deliver.

Factors found one layer at a time suffer from each other: the second layer meets inputs that the first has
already changed. Here layer l gets the weight W* that best gives the dense layer's output y from the
compressed net's input x', W* = W + (Cov(y, x') - W C')(C' + ridge I)^-1 with C' = Cov(x'), and then W*'s
data-aware factors. Least squares in closed form; no gradient step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.weighted import WeightedFactors, weighted_factors
from lowrank_utils.layers.copying import copied, put, replaced
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.views import Pick, layer_view
from lowrank_utils.layers.which import hooked_input, layer_of
from lowrank_utils.model.batches import Batch, batches, call
from lowrank_utils.network.decomposed import checked, cut


@plainly()
@torch.no_grad()
def cascade(
    model: nn.Module,
    ranks: Mapping[str, Pick],
    X: Any,
    moments: Mapping[str, Moments],
    *,
    factors: Mapping[str, WeightedFactors] | None = None,
    pivoted: bool = False,
    ridge: float = 1e-3,
    batch_size: int = 256,
) -> nn.Module:
    r"""A copy of ``model`` with these ranks, each layer refitted to what the ones before it became.

    Args:
        model: Any module; it is not changed.
        ranks: ``{dotted name: rank}``; the other layers in ``moments`` are refitted too, but stay dense.
        X: Samples to fit on (training data), or batches, as in ``calibrate``: many more rows than a layer
            has inputs. Labels are not needed.
        moments: From ``calibrate``, whose order is that of the calls; gives G.
        factors: ``{dotted name: weighted_factors(W, moments)}``, where they are at hand; only the first layer
            that is cut has use for its own.
        pivoted: Store r(m + n - r) numbers in a ``PivotedLinear`` instead of r(m + n).
        ridge: Pull towards W, in units of C's mean diagonal, > 0.
        batch_size: Samples a batch.

    Raises:
        TypeError: If a rank is no integer.
        ValueError: If a layer does not exist, has no moments or is shared, or a rank is out of range.

    Reference:
        Izenman 1975 (reduced-rank regression).

    Example:
        >>> from lowrank_utils import calibrate
        >>> net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> X = torch.eye(8)
        >>> cascade(net, {"0": 2}, X, calibrate(net, X))[0]
        LowRankLinear(in_features=8, out_features=6, rank=2, bias=True, core=False)
    """
    ridge = _checks.real(ridge, "ridge", low=0.0, open_low=True)
    chosen: dict[str, int] = {}
    for name in ranks:
        if name not in moments:
            _checks.value_error("ranks", dict(ranks), f"of layers that have moments: {sorted(moments)}")
        m, n = layer_view(layer_of(model, name)).weight.shape
        chosen[name] = _checks.rank(ranks[name], m, n, f"ranks[{name!r}]")
    data = list(batches(X, size=batch_size))
    if not sum(map(len, data)):
        raise ValueError("X has no samples; it must have at least one")
    dense, small = copied(_checks.module(model)).eval(), copied(model).eval()
    new: dict[str, nn.Module] = {}
    changed = False  # until something is, a layer's inputs are those of the dense net
    for name in tqdm(moments, desc="cascade", leave=False, delay=1.0):
        layer, seen = layer_view(layer_of(dense, name)), moments[name]
        W = layer.weight.double()
        n = W.shape[1]
        b = torch.zeros(len(W)).to(W) if layer.bias is None else layer.bias.double()
        if changed:
            joint = _joint_moments(dense, small, name, data)
            C, K = joint.covariance[:n, :n], joint.covariance[n:, :n]  # Cov(x'), Cov(y, x')
            power = (C.trace() + joint.mean[:n].square().sum()) / n  # rounding makes C off by eps of it
            eps = torch.finfo(C.dtype)
            damped = C + (ridge * C.trace() / n + n * eps.eps * power + eps.tiny) * torch.eye(n).to(C)
            W = W + torch.linalg.solve(damped, K - W @ C, left=False)
            b = joint.mean[n:] - W @ joint.mean[:n]  # E[y] - W* E[x']
            seen = Moments(joint.rows, joint.samples, joint.mean[:n], C, seen.gradient)
        elif name not in ranks:
            continue
        if name in chosen:
            known = factors is not None and not changed
            found = checked(factors or {}, name, layer) if known else weighted_factors(W, seen)
            new[name] = cut(layer, found, chosen[name], b, pivoted=pivoted)
        else:
            new[name] = layer.dense(W, b)
        small, changed = put(small, name, new[name]), True
    return replaced(model, new)


def _joint_moments(dense: nn.Module, small: nn.Module, name: str, data: Sequence[Batch]) -> Moments:
    """Moments of (x', y): the small net's input to a layer, and the dense net's output of it."""
    inputs: list[Tensor] = []  # clones, since a later operation may work in place
    outputs: list[Tensor] = []
    layer = layer_view(dense.get_submodule(name))
    m, n = layer.weight.shape
    handles = [
        small.get_submodule(name).register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append(layer.rows(hooked_input(args, kwargs)).clone()),
            with_kwargs=True,
        ),
        dense.get_submodule(name).register_forward_hook(
            lambda _, args, out: outputs.append(layer.output_rows(out).clone()), prepend=True
        ),
    ]
    joint = Moments.empty(n + m, layer.weight.device)
    try:
        for batch in data:
            inputs.clear()
            outputs.clear()
            call(small, batch.on(small).inputs)
            call(dense, batch.on(dense).inputs)
            for x, y in zip(inputs, outputs, strict=True):
                joint.add(torch.cat([x, y], 1).double())
            joint.samples += len(batch)
    finally:
        for handle in handles:
            handle.remove()
    return joint
