r"""Layer after layer: each is fitted to the inputs that the compressed layers before it really deliver.

Factors found one layer at a time suffer from each other: the second layer meets inputs that the first has
already changed. Here layer l gets the weight W* that best gives the dense layer's output y from the
compressed net's input x', in closed form (``refit``), and then W*'s data-aware factors.

Two nets run side by side, the dense one for y and the small one for x'. Block after block, each from what
arrives there, so that the time grows with the depth and not with its square; where blocks by themselves do
not do what they do in the model, which is checked, both nets are run as a whole for each layer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowrank_utils import _checks
from lowrank_utils.factors.moments import Moments
from lowrank_utils.factors.unfold import Rank
from lowrank_utils.factors.weighted import WeightedFactors, weighted_factors
from lowrank_utils.layers.copying import copied, replaced
from lowrank_utils.layers.fused import plainly
from lowrank_utils.layers.views import LayerView, Pick, layer_view
from lowrank_utils.layers.which import layer_of
from lowrank_utils.model.batches import batches
from lowrank_utils.model.padding import Mask
from lowrank_utils.network.decomposed import checked, cut
from lowrank_utils.network.halves import best_ridge
from lowrank_utils.network.refit import Joint
from lowrank_utils.network.residual import connections
from lowrank_utils.network.side_by_side import SideBySide
from lowrank_utils.network.stream import Unsafe

FEW = 4  # layers up to which whole runs cost less than looking for blocks


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
    ridge: float | None = 1e-3,
    mask: Mask | None = None,
    residual: Mapping[str, str] | None = None,
    batch_size: int = 256,
    stretch: float | None = None,
    memory_gb: float = 4.0,
) -> nn.Module:
    r"""A copy of ``model`` with these ranks, each layer refitted to what the ones before it became.

    It takes three copies of the model, about 100 n^2 bytes for the layer at hand, and what arrives at a
    block, at most ``memory_gb`` of it for each of two nets.

    Args:
        model: Any module; it is not changed.
        ranks: ``{dotted name: rank}``, of a convolution also ``(form, rank)``, for its refitted kernel; the
            other layers in ``moments`` are refitted too, but stay dense.
        X: Samples to fit on (training data), or batches, as in ``calibrate``: many more rows than a layer
            has inputs. Labels are not needed.
        moments: From ``calibrate``, whose order is that of the calls; gives G.
        factors: ``{dotted name: weighted_factors(W, moments)}``, where they are at hand; only the first layer
            that is cut has use for its own.
        pivoted: As in ``compress``.
        ridge: Pull towards W, in units of C's mean diagonal, > 0; None: of each layer, that of least error
            where each half of the data is fitted and the other one judges. Ask for it where rows are few;
            with many, one ridge of 0.3 to 1 may serve the model better: a layer's error is not the model's.
        mask: A callable(inputs) -> (N, T), as in ``calibrate``, for which rows count.
        residual: ``{layer: module}``: the layer's own output is added to a tensor h, which this module read
            last before it, as its first argument (a residual connection; ``residual_connections`` finds
            them). The layer then makes up for what h has become: it is fitted to y + h - h' and not to y, so
            that the sum is nearer. A layer that is not refitted may be named.
        batch_size: Samples a batch.
        stretch: Largest spectral norm of a refitted weight, in units of the old one's: the layer's ridge is
            raised until it holds. Of eleven small nets, trained on at one rate, none diverged at 1 and
            two did at 1.1; None: any.
        memory_gb: For what arrives at a block (10^9 bytes, for each of two nets); what is more is kept in a
            temporary file.

    Raises:
        TypeError: If a rank is no integer, or ``residual`` no mapping.
        ValueError: If a layer does not exist, has no moments or is shared, a rank is out of range, the data
            are not finite, or a residual's module is not called before the layer, or on another shape than
            its output's.

    Reference:
        Izenman 1975 (reduced-rank regression).

    Example:
        >>> from lowrank_utils import calibrate
        >>> net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> X = torch.eye(8)
        >>> cascade(net, {"0": 2}, X, calibrate(net, X))[0]
        LowRankLinear(in_features=8, out_features=6, rank=2, bias=True, core=False)
    """
    model = _checks.module(model)
    if ridge is not None:
        ridge = _checks.real(ridge, "ridge", low=0.0, open_low=True)
    room_gb = _checks.real(memory_gb, "memory_gb", low=0.0)
    if stretch is not None:
        stretch = _checks.real(stretch, "stretch", low=1.0)
    chosen: dict[str, Pick] = {}
    for name in ranks:
        if name not in moments:
            _checks.value_error("ranks", dict(ranks), f"of layers that have moments: {sorted(moments)}")
        layer, pick = layer_view(layer_of(model, name)), ranks[name]
        if isinstance(pick, tuple):
            layer.in_form(*pick)  # raises before anything is run
            chosen[name] = pick
        else:
            m, n = layer.weight.shape
            chosen[name] = _checks.rank(pick, m, n, f"ranks[{name!r}]")
    added = connections(model, residual)
    data = list(batches(X, size=batch_size))
    if not sum(map(len, data)):
        _checks.no_samples()
    order = list(moments)
    first = next((i for i, name in enumerate(order) if name in chosen), len(order))
    order = order[first:]  # until something is changed, a layer's inputs are those of the dense net
    for name in order:
        layer_of(model, name)
    rule = _Rule(chosen, moments, factors, ridge, stretch, pivoted)

    def nets() -> SideBySide:
        dense, small = copied(model).eval(), copied(model).eval()
        return SideBySide(dense, small, data, room_gb * 1e9, mask=mask, halved=ridge is None, residual=added)

    if len(order) > FEW + 1:
        try:
            return _cascaded(model, order, rule, nets(), by_blocks=True)
        except Unsafe:
            pass
    return _cascaded(model, order, rule, nets(), by_blocks=False)


@dataclass(frozen=True)
class _Rule:
    """What becomes of a layer."""

    chosen: Mapping[str, Pick]
    moments: Mapping[str, Moments]
    factors: Mapping[str, WeightedFactors] | None
    ridge: float | None
    stretch: float | None
    pivoted: bool

    def first(self, name: str, layer: LayerView) -> nn.Module:
        """The first layer that is cut: nothing before it has changed."""
        pick, seen = self.chosen[name], self.moments[name]
        if isinstance(pick, tuple):
            W = layer.weight.double()
            b = W.new_zeros(len(W)) if layer.bias is None else layer.bias.double()
            return _formed(layer, pick, W, seen.mean, W @ seen.mean + b)
        if self.factors is None:
            found = weighted_factors(layer.weight, seen)
        else:
            found = checked(self.factors, name, layer)
        return cut(layer, found, pick, layer.bias, pivoted=self.pivoted)

    def later(
        self, name: str, layer: LayerView, joint: Joint, parts: Sequence[Joint], which: int
    ) -> nn.Module:
        """A layer that other inputs reach; ``joint`` has the rows of all parts."""
        W = layer.weight.double()
        ridge = best_ridge(parts, W, which) if self.ridge is None else self.ridge
        W = joint.refitted(W, ridge, which, stretch=self.stretch)
        b = joint.bias(W, which)
        if name not in self.chosen:
            return layer.dense(W, b)
        pick = self.chosen[name]
        if isinstance(pick, tuple):
            return _formed(layer, pick, W, joint.mean, joint.mean_out[which])
        old = self.moments[name]
        seen = Moments(joint.rows, old.samples, joint.mean, joint.covariance, old.gradient)
        return cut(layer, weighted_factors(W, seen), pick, b, pivoted=self.pivoted)


def _formed(layer: LayerView, pick: tuple[str, Rank], W: Tensor, mean: Tensor, mean_out: Tensor) -> nn.Module:
    """The layer of weight W (m, n) in a form, with the bias E[y] - W~ E[x] for the weight W~ it then has."""
    made: Any = layer_view(layer.dense(W, mean_out)).in_form(*pick)
    bias = mean_out - made.weight.flatten(1).double() @ mean
    made.bias.copy_(bias)
    return cast(nn.Module, made)


def _cascaded(
    model: nn.Module, order: Sequence[str], rule: _Rule, pair: SideBySide, *, by_blocks: bool
) -> nn.Module:
    """The small net; layer after layer in this order, of which the first is cut.

    Raises:
        Unsafe: With ``by_blocks``, where the result would not be that of whole runs.
    """
    dense, new = pair.dense.model, dict[str, nn.Module]()
    with closing(pair), tqdm(total=len(order), desc="cascade", leave=False, delay=1.0) as bar:
        for name in order[:1]:
            new[name] = rule.first(name, layer_view(dense.get_submodule(name)))
            pair.put(name, new[name])
            bar.update()
        groups = pair.by_blocks(order[1:]) if by_blocks else pair.whole(order[1:])
        for group, parts in groups:
            joint = functools.reduce(Joint.and_, parts)
            for name, mean_out in zip(group, joint.mean_out, strict=True):
                _checks.finite_in(name, "inputs", joint.mean)
                _checks.finite_in(name, "outputs", mean_out)
            for i, name in enumerate(group):
                new[name] = rule.later(name, layer_view(dense.get_submodule(name)), joint, parts, i)
                pair.put(name, new[name])
                bar.update()
    return replaced(model, new)
