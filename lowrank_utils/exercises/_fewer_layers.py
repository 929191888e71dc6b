"""The judge of exercise 9.3: is it a new encoder, and does it lack the layers that it should lack?"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lowrank_utils.exercises._answers import NotYet, _same, _words, describe, function, on

WIDTH = 8


def _encoder(seed: int, layers: int, *, norm: bool = False, **told: Any) -> nn.TransformerEncoder:
    """A small encoder in eval mode; no two of its layers have the same weights."""
    noise = torch.Generator().manual_seed(seed)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True, **told)
    last = nn.LayerNorm(WIDTH) if norm else None
    net = nn.TransformerEncoder(layer, layers, last, enable_nested_tensor=False).eval()
    for parameter in net.parameters():
        drawn = torch.randn(parameter.shape, generator=noise)
        parameter.data.copy_(0.7 * drawn + (parameter.ndim == 1))
    return net


def _cases() -> Iterator[tuple[nn.TransformerEncoder, Collection[int]]]:
    """An encoder, and the layers to leave out: in order, out of order, in each kind of collection, none."""
    yield _encoder(1, 5, activation="gelu"), [1, 3]
    yield _encoder(2, 5, norm=True, norm_first=True), [2, 1]
    yield _encoder(3, 4, norm=True, layer_norm_eps=0.2), (0, 2)
    yield _encoder(4, 4), {3}
    yield _encoder(5, 3, norm=True, dropout=0.5), []


def without(answer: object) -> str | None:
    """What is wrong with a ``without(net, which)``, or None."""
    shorten = function(answer, "without(net, which)")
    for net, which in _cases():
        layers = len(net.layers)
        with on(f"{layers} layers{' and a norm' if net.norm is not None else ''} without {which}"):
            try:
                made = shorten(net, which)
            except NotYet:
                if len(net.layers) == layers:
                    raise
                hint = "your function takes layers out of net itself; work on a copy, and a deep one."
                raise NotYet(hint) from None
            _check_layers(made, net, which)
            _check_norm(made, net)
            _check_storage(made, net)
            _check_outputs(made, net, which)
    return None


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """The same weights under the same names, whatever the mode."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)


def _popped(n: int, which: Iterable[int]) -> list[int]:
    """What is left of n layers where they go one by one, and each number counts in what is left by then."""
    left = list(range(n))
    for place in which:
        del left[place : place + 1]
    return left


def _check_layers(made: Any, net: nn.TransformerEncoder, which: Collection[int]) -> None:
    """Raise the hint for what is no new encoder, or one of other layers."""
    if made is net:
        raise NotYet("that is net itself; return a new encoder.")
    if not isinstance(made, nn.TransformerEncoder):
        lacks = ", which takes no src_key_padding_mask" if isinstance(made, nn.Sequential) else ""
        raise NotYet(f"return an nn.TransformerEncoder, not {describe(made)}{lacks}.")
    if not isinstance(made.layers, nn.ModuleList | nn.Sequential):
        raise NotYet(f"its layers must be an nn.ModuleList, not {describe(made.layers)}.")
    n, k = len(net.layers), len(which)
    kept = [
        next((i for i, theirs in enumerate(net.layers) if _alike(mine, theirs)), None) for mine in made.layers
    ]
    wanted = [i for i in range(n) if i not in which]
    if kept == wanted:
        return
    moved = f"layers {kept} are kept: once one is gone, those behind it have other numbers."
    hints: tuple[tuple[list[int], str], ...] = (
        (list(range(n)), f"it still has all {n} layers."),
        ([], "it has no layers at all."),
        (sorted(which), "these are the layers to leave out; keep the others."),
        (_popped(n, which), moved),
        (_popped(n, [*which][::-1]), moved),
        ([i for i in range(n) if i + 1 not in which], f"layers {kept} are kept: they are counted from 0."),
        (wanted[:1] * len(wanted), f"all its layers are copies of layer {wanted[0]}."),
        (list(range(n - k)), f"it has lost the last {k} layers, and not those with these numbers."),
        (list(range(k, n)), f"it has lost the first {k} layers, and not those with these numbers."),
    )
    for other, hint in hints:
        if kept == other:
            raise NotYet(hint)
    empty = [i for i, layer in enumerate(made.layers) if not any(True for _ in layer.parameters())]
    if empty:
        what = describe(made.layers[empty[0]])
        raise NotYet(f"its layer {empty[0]} is {what}, which has no weights: take it out of the list.")
    if None in kept:
        raise NotYet(f"its layer {kept.index(None)} is none of net's: it has other weights.")
    if set(kept) == set(wanted) and len(kept) == len(wanted):
        raise NotYet(f"its layers stand in the order {kept}, and not as in net.")
    raise NotYet(f"layers {kept} are kept.")


def _check_norm(made: nn.TransformerEncoder, net: nn.TransformerEncoder) -> None:
    """Raise the hint for another norm behind the last layer."""
    if net.norm is None and made.norm is not None:
        raise NotYet("net has no norm behind its last layer, and the result has one.")
    if net.norm is not None and made.norm is None:
        raise NotYet("the norm behind the last layer is missing.")
    if net.norm is not None and made.norm is not None and not _alike(made.norm, net.norm):
        raise NotYet("the norm behind the last layer has other weights than that of net.")


def _check_storage(made: nn.TransformerEncoder, net: nn.TransformerEncoder) -> None:
    """Raise the hint for weights that belong to both."""
    taken = {weight.untyped_storage().data_ptr() for weight in net.state_dict().values()}
    weights = made.state_dict()
    shared = [name for name, weight in weights.items() if weight.untyped_storage().data_ptr() in taken]
    if shared:
        what = "all its weights are" if len(shared) == len(weights) else f"its {shared[0]} is"
        raise NotYet(f"{what} net's own: training the result would change net.")


def _check_outputs(made: nn.TransformerEncoder, net: nn.TransformerEncoder, which: Collection[int]) -> None:
    """Raise the hint where the result has net's weights, and computes something else."""
    x = torch.randn(3, 6, WIDTH, generator=torch.Generator().manual_seed(9))
    padded = torch.arange(6) >= torch.tensor([[6], [3], [4]])
    made.eval()
    for mask, case, why in (
        (None, "without padding", "are heads, activation, norm_first and eps as in net?"),
        (padded, "with src_key_padding_mask", "those without it are right."),
    ):
        wanted, read = x, torch.ones_like(padded) if mask is None else ~mask
        for i, layer in enumerate(net.layers):
            wanted = wanted if i in which else layer(wanted, src_key_padding_mask=mask)
        wanted = wanted if net.norm is None else net.norm(wanted)
        try:
            with warnings.catch_warnings(action="ignore"):
                found = made(x) if mask is None else made(x, src_key_padding_mask=mask)
        except Exception as error:
            raise NotYet(f"called {case} the result raises {_words(error)}.") from error
        if not isinstance(found, Tensor) or found.shape != wanted.shape:
            raise NotYet(f"called {case} the result gives {describe(found)}, not {describe(wanted)}.")
        if not (found - wanted)[read].norm() <= 1e-5 * wanted[read].norm():
            raise NotYet(f"it has net's weights and other outputs {case}: {why}")
