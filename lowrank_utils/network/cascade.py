r"""Layer after layer: each is fitted to the inputs that the compressed layers before it really deliver.

Factors found one layer at a time suffer from each other: the second layer meets inputs that the first has
already changed. Here layer l gets the weight W* that best gives the dense layer's output y from the
compressed net's input x', W* = W + (Cov(y, x') - W C')(C' + ridge I)^-1 with C' = Cov(x'), and then W*'s
data-aware factors. Least squares in closed form; no gradient step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.weighted import weighted_factors
from lowrank_utils.layers.linear import LowRankLinear
from lowrank_utils.layers.pivoted import PivotedLinear


@torch.no_grad()
def cascade(
    model: nn.Module,
    ranks: Mapping[str, int],
    X: Tensor,
    moments: Mapping[str, Moments],
    *,
    pivoted: bool = False,
    ridge: float = 1e-3,
    batch_size: int = 256,
) -> nn.Module:
    r"""A copy of ``model`` with these ranks, each layer refitted to what the ones before it became.

    Args:
        model: Any module; it is not changed.
        ranks: ``{dotted name: rank}``; the other layers in ``moments`` are refitted too, but stay dense.
        X: Samples to fit on (training data): many more rows than a layer has inputs.
        moments: From ``calibrate``, whose order is that of the calls; gives G.
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
    for name in ranks:
        if name not in moments:
            _checks.value_error("ranks", dict(ranks), f"of layers that have moments: {sorted(moments)}")
        m, n = _checks.linear_layer(model, name).weight.shape
        _checks.rank(ranks[name], m, n, f"ranks[{name!r}]")
    dense, small = copy.deepcopy(_checks.module(model)).eval(), copy.deepcopy(model).eval()
    changed = False  # until something is, a layer's inputs are those of the dense net
    for name in tqdm(moments, desc="cascade", leave=False, delay=1.0):
        linear, seen = _checks.linear_layer(dense, name), moments[name]
        W, n = linear.weight.double(), linear.in_features
        b = torch.zeros(len(W)).to(W) if linear.bias is None else linear.bias.double()
        if changed:
            joint = _joint_moments(dense, small, name, X.split(batch_size))  # type: ignore[no-untyped-call]
            C, K = joint.covariance[:n, :n], joint.covariance[n:, :n]  # Cov(x'), Cov(y, x')
            damped = C + (ridge * C.trace() / n + torch.finfo(C.dtype).tiny) * torch.eye(n).to(C)
            W = W + torch.linalg.solve(damped, K - W @ C, left=False)
            b = joint.mean[n:] - W @ joint.mean[:n]  # E[y] - W* E[x']
            seen = Moments(joint.rows, joint.samples, joint.mean[:n], C, seen.gradient)
        elif name not in ranks:
            continue
        new = _layer(W, b, seen, ranks.get(name), linear, pivoted)
        if name == "":
            small = new  # the model is itself the layer
        else:
            small.set_submodule(name, new)
        changed = True
    for old, other in zip(model.modules(), small.modules(), strict=True):
        other.training = old.training
    return small


def _layer(
    W: Tensor, b: Tensor, seen: Moments, rank: int | None, like: nn.Linear, pivoted: bool
) -> nn.Module:
    if rank is not None:
        U, Vh, change = weighted_factors(W, seen).at(rank)
        form = PivotedLinear if pivoted else LowRankLinear
        return form.from_factors(U, Vh, b + change).to(like.weight.dtype)
    new = {"device": W.device, "dtype": like.weight.dtype}
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, W.shape[1], W.shape[0], **new)  # type: ignore[no-untyped-call]
    linear.weight.copy_(W)
    linear.bias.copy_(b)
    return linear


def _joint_moments(dense: nn.Module, small: nn.Module, name: str, batches: tuple[Tensor, ...]) -> Moments:
    """Moments of (x', y): the small net's input to a layer, and the dense net's output of it."""
    inputs: list[Tensor] = []  # clones, since a later operation may work in place
    outputs: list[Tensor] = []
    m, n = dense.get_submodule(name).weight.shape  # type: ignore[misc]
    handles = [
        small.get_submodule(name).register_forward_pre_hook(
            lambda _, args, kwargs: inputs.append((args[0] if args else kwargs["input"]).clone()),
            with_kwargs=True,
        ),
        dense.get_submodule(name).register_forward_hook(lambda _, args, out: outputs.append(out.clone())),
    ]
    joint = Moments.empty(n + m, batches[0].device)
    try:
        for X in batches:
            inputs.clear()
            outputs.clear()
            small(X)
            dense(X)
            for x, y in zip(inputs, outputs, strict=True):
                joint.add(torch.cat([x.reshape(-1, n), y.reshape(-1, m)], 1).double())
            joint.samples += len(X)
    finally:
        for handle in handles:
            handle.remove()
    return joint
